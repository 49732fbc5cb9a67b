//! A model of random weights, large enough to keep a device busy: what disk, hash and device are measured with.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Instant,
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use shared::file::{self, FileError};

const HIDDEN: u64 = 2048;
const INNER: u64 = 8192;
const LAYERS: u64 = 2;
pub(super) const VOCABULARY: u64 = 512;
const HEADS: u64 = 16;

/// Weights that every token meets.
pub(super) const PARAMETERS: u64 =
    LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER) + VOCABULARY * HIDDEN;

const WEIGHTS: &str = "model.safetensors";

/// Random bytes, repeated.
const PATTERN: usize = 1 << 20;

/// Read at a time, as the loader of models does.
const PIECE: usize = 4 << 20;

/// Longer than this it need not be measured.
const ENOUGH_SECONDS: f64 = 4.0;

/// The folder of the model; it goes with this.
#[derive(Debug)]
pub(super) struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        // What is left is removed by the next measurement.
        let _ = file::remove_dir(&self.0);
    }
}

impl Trial {
    /// Writes the model.
    pub(super) fn write(folder: PathBuf) -> Result<Self, FileError> {
        if folder.exists() {
            file::remove_dir(&folder)?;
        }
        file::create_dir(&folder)?;
        let trial = Self(folder);
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": true, "attention_bias": false,
        });
        file::write_atomic(&trial.0.join("config.json"), config.to_string().as_bytes())?;
        file::write_atomic(&trial.weights(), &weights())?;
        Ok(trial)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    fn weights(&self) -> PathBuf {
        self.0.join(WEIGHTS)
    }

    /// Returns bytes a second from the disk, not from memory.
    pub(super) fn read_rate(&self) -> io::Result<f64> {
        let mut file = File::open(self.weights())?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let mut piece = vec![0; PIECE];
        let (began, mut bytes) = (Instant::now(), 0);
        while began.elapsed().as_secs_f64() < ENOUGH_SECONDS {
            match file.read(&mut piece)? {
                0 => break,
                read => bytes += read,
            }
        }
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }

    /// Returns bytes a second of SHA-256, on one core.
    pub(super) fn hash_rate() -> f64 {
        let piece = pattern(PIECE);
        let (began, mut bytes, mut hash) = (Instant::now(), 0, Sha256::new());
        while began.elapsed().as_secs_f64() < 0.5 {
            hash.update(&piece);
            bytes += piece.len();
        }
        std::hint::black_box(hash.finalize());
        bytes as f64 / began.elapsed().as_secs_f64()
    }
}

fn pattern(length: usize) -> Vec<u8> {
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let value: f32 = random.random_range(-0.02..0.02);
        // The upper half of a float is a bfloat16.
        bytes.extend_from_slice(&value.to_le_bytes()[2..]);
    }
    bytes
}

/// Returns the weights as a safetensors file.
fn weights() -> Vec<u8> {
    let mut header = Map::new();
    // As PyTorch writes it, which is asked for.
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    let mut tensor = |name: String, shape: &[u64]| {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name, entry);
    };
    tensor(
        "model.embed_tokens.weight".to_owned(),
        &[VOCABULARY, HIDDEN],
    );
    tensor("model.norm.weight".to_owned(), &[HIDDEN]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensor(name(norm), &[HIDDEN]);
        }
        for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            tensor(name(&format!("self_attn.{projection}")), &[HIDDEN, HIDDEN]);
        }
        for projection in ["gate_proj", "up_proj"] {
            tensor(name(&format!("mlp.{projection}")), &[INNER, HIDDEN]);
        }
        tensor(name("mlp.down_proj"), &[HIDDEN, INNER]);
    }
    let header = Value::Object(header).to_string().into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    let length = bytes.len() + usize::try_from(end).unwrap_or(usize::MAX);
    let pattern = pattern(PATTERN);
    while bytes.len() < length {
        let rest = (length - bytes.len()).min(PATTERN);
        bytes.extend_from_slice(&pattern[..rest]);
    }
    bytes
}

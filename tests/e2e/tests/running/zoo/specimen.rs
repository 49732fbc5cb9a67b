//! What a hostile repository is: the files of a tiny model that is accepted, spoiled in one way.

use std::{collections::BTreeMap, fs, sync::LazyLock};

use localnet::{
    http::{Fault, Rule},
    hub::Content,
};
use model::{Architecture, Compatibility, config::DecoderSpec};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The first of the model's matrices.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Files of a repository by path.
type Files = BTreeMap<String, Content>;

/// Trouble that the hub makes with a repository, on its way to us.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) at_cdn: bool,
    pub(crate) rule: Rule,
}

/// A repository that means ill, and its name.
#[derive(Debug, Clone)]
pub(crate) struct Specimen {
    pub(crate) name: String,
    pub(crate) files: Files,
    pub(crate) trouble: Option<Trouble>,
    /// Claims the hash of something else.
    pub(crate) lies: bool,
}

impl Specimen {
    /// The model as it is accepted.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            files: MODEL.files.clone(),
            trouble: None,
            lies: false,
        }
    }

    pub(crate) fn file(mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content(bytes.into()));
        self
    }

    pub(crate) fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }

    /// A file of so many bytes that begins with some and goes on with zeros.
    pub(crate) fn sparse(mut self, path: &str, head: impl Into<Vec<u8>>, size: u64) -> Self {
        let head: Vec<u8> = head.into();
        // The hub finds it by this, and nothing else.
        let sha256 = hex(&Sha256::digest(format!("{} {path}", self.name)));
        let head = head.into();
        let sparse = Content::Virtual { head, size, sha256 };
        self.files.insert(path.to_owned(), sparse);
        self
    }

    /// Changes a file of JSON.
    pub(crate) fn json(self, path: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = self.value(path);
        edit(&mut value);
        self.file(path, value.to_string())
    }

    /// Changes a file of JSON as a text, for what no value can be.
    pub(crate) fn text(self, path: &str, edit: impl FnOnce(&str) -> String) -> Self {
        let text = edit(&self.value(path).to_string());
        self.file(path, text)
    }

    fn value(&self, path: &str) -> Value {
        serde_json::from_slice(bytes(&self.files[path])).unwrap()
    }

    /// Changes the header of the weights.
    pub(crate) fn header(self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut header = MODEL.header.clone();
        edit(&mut header);
        self.file(WEIGHTS, weights(&header.to_string(), &MODEL.data))
    }

    /// Changes the header of the weights as a text.
    pub(crate) fn header_text(self, edit: impl FnOnce(&str) -> String) -> Self {
        let header = edit(&MODEL.header.to_string());
        self.file(WEIGHTS, weights(&header, &MODEL.data))
    }

    /// Changes what the weights are.
    pub(crate) fn data(self, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut data = MODEL.data.clone();
        edit(&mut data);
        self.file(WEIGHTS, weights(&MODEL.header.to_string(), &data))
    }

    /// Changes a tensor to so many times one number.
    pub(crate) fn tensor(self, name: &str, value: f32) -> Self {
        let offsets = MODEL.header[name]["data_offsets"].clone();
        let [start, end]: [usize; 2] = serde_json::from_value(offsets).unwrap();
        self.data(|data| {
            let number = half(value);
            for pair in data[start..end].as_chunks_mut().0 {
                *pair = number;
            }
        })
    }

    /// Moves the weights to a shard, with an index that tells where.
    pub(crate) fn sharded(self, shard: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let names = MODEL.header.as_object().unwrap().keys();
        let names = names.filter(|name| !name.starts_with("__"));
        let map: BTreeMap<&String, &str> = names.map(|name| (name, shard)).collect();
        let mut index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        edit(&mut index);
        let whole = self.files[WEIGHTS].clone();
        let mut moved = self.without(WEIGHTS).file(INDEX, index.to_string());
        moved.files.insert(shard.to_owned(), whole);
        moved
    }

    pub(crate) fn template(self, template: &str) -> Self {
        self.json(TOKENIZER_CONFIG, |config| {
            config["chat_template"] = template.into();
        })
    }

    /// A fault of the hub that meets this repository.
    pub(crate) fn trouble(mut self, at_cdn: bool, fault: Fault) -> Self {
        let rule = Rule::always(fault).on(&self.name);
        self.trouble = Some(Trouble { at_cdn, rule });
        self
    }

    pub(crate) fn lying(mut self) -> Self {
        self.lies = true;
        self
    }
}

/// A model that is accepted.
struct Model {
    files: Files,
    /// Header of its weights.
    header: Value,
    /// What comes after.
    data: Vec<u8>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let fixtures = e2e::workspace().join("validator/engine/tests/fixtures/models/llama_gqa");
    let read = |name: &str| fs::read(fixtures.join(name)).unwrap();
    let mut config: Value = serde_json::from_slice(&read(CONFIG)).unwrap();
    config["hidden_size"] = 16.into();
    config["intermediate_size"] = 16.into();
    config["num_hidden_layers"] = 1.into();
    config["num_attention_heads"] = 2.into();
    config["num_key_value_heads"] = 1.into();
    let config = config.to_string();
    let compatibility = Compatibility::V4_40;
    let spec = DecoderSpec::parse(config.as_bytes(), Architecture::Llama, compatibility).unwrap();
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut data = Vec::new();
    for tensor in spec.tensors() {
        let start = data.len();
        let elements: u64 = tensor.shape.iter().product();
        for index in 0..elements {
            // Anything that is no pattern will do.
            let spread = (index * 7919 + start as u64) % 1009;
            data.extend(half(spread as f32 / 5000.0 - 0.1));
        }
        header[&tensor.name] =
            json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, data.len()]});
    }
    let mut files = Files::from([(CONFIG.to_owned(), content(config.into_bytes()))]);
    for name in [
        "generation_config.json",
        "special_tokens_map.json",
        TOKENIZER,
        TOKENIZER_CONFIG,
    ] {
        files.insert(name.to_owned(), content(read(name)));
    }
    let whole = weights(&header.to_string(), &data);
    files.insert(WEIGHTS.to_owned(), content(whole));
    Model {
        files,
        header,
        data,
    }
});

/// A number in bfloat16.
fn half(value: f32) -> [u8; 2] {
    let [_, _, low, high] = value.to_le_bytes();
    [low, high]
}

/// A safetensors file.
pub(crate) fn weights(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

/// Large files lie on the CDN, where they are found by a hash that is known: a hub of hundreds of
/// repositories would hash all of them for each request.
fn content(bytes: Vec<u8>) -> Content {
    if bytes.len() < 64 << 10 {
        return Content::from(bytes);
    }
    let digest = Sha256::digest(&bytes);
    Content::Virtual {
        sha256: hex(&digest),
        size: bytes.len() as u64,
        head: bytes.into(),
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(content: &Content) -> &[u8] {
    match content {
        Content::Bytes(bytes) | Content::Virtual { head: bytes, .. } => bytes,
        Content::Disk { .. } | Content::Tiled { .. } => &[],
    }
}

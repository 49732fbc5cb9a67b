//! An independent reference: losses computed with candle-transformers' own implementations of the
//! models, which share neither packing nor attention nor kernels with [`crate::decoder`].
//!
//! They give the logits of the last position only, so a sample costs one pass for its prompt and
//! one for each token of its response, over their cache of keys and values. They are computed in
//! f32 whatever the model is judged in: several of them build their rotary tables in the model's
//! type, which loses positions above 256 in bfloat16 (`candle-transformers/src/models/qwen2.rs`,
//! `RotaryEmbedding::new`). What they leave out of `config.json` is refused by name in
//! `limits`, never computed wrongly.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use candle_core::{DType, Device, Error, Result, Tensor};
use candle_nn::{Activation as Act, VarBuilder, ops::log_softmax};
use candle_transformers::models::{gemma, llama, mistral, qwen2, stable_lm};
use model::{
    Architecture, Fault, TokenizedSample,
    config::{Activation, DecoderSpec, HeadNorms, Norm, RotaryScaling},
    header::Dtype,
};
use serde_json::json;

use crate::{fault, load};

/// Tensors of a checkpoint by name, in f32.
pub(crate) type Tensors = HashMap<String, Tensor>;

/// Losses of samples, or what of the model the reference leaves out.
pub type Outcome = std::result::Result<Vec<f64>, String>;

/// Reads the model in `directory` and computes the loss of each sample; `progress` is told of each
/// further number of tokens that are done. Losses that are not finite are as in [`crate::loss`].
///
/// # Errors
/// The machine's, or the model's if its files can't be read.
pub fn of_directory(
    directory: &Path,
    spec: &DecoderSpec,
    samples: &[TokenizedSample],
    device: &Device,
    progress: &dyn Fn(u64),
) -> std::result::Result<Outcome, Fault> {
    if let Err(limit) = limits(spec, samples) {
        return Ok(Err(limit));
    }
    let inventory = load::inventory(directory, spec)?;
    let floats = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];
    let mut places = inventory.tensors.values();
    if inventory.untied
        || !inventory.defaulted.is_empty()
        || places.any(|place| !floats.contains(&place.info.dtype))
    {
        let limit = "the second implementation loads only what is stored as it is computed";
        return Ok(Err(limit.to_owned()));
    }
    let mut files = HashMap::new();
    let mut tensors = Tensors::new();
    for (name, place) in &inventory.tensors {
        let read = match files.entry(&place.file) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let read = candle_core::safetensors::load(directory.join(&place.file), device);
                entry.insert(read.map_err(|error| fault::of_tensors(&error))?)
            }
        };
        let Some(tensor) = read.get(&place.stored) else {
            continue;
        };
        let widened = tensor.to_dtype(DType::F32);
        tensors.insert(
            name.clone(),
            widened.map_err(|error| fault::of_tensors(&error))?,
        );
    }
    losses(tensors, spec, samples, device, progress).map_err(|error| fault::of_tensors(&error))
}

/// Computes the loss of each sample from a checkpoint's tensors.
pub(crate) fn losses(
    mut tensors: Tensors,
    spec: &DecoderSpec,
    samples: &[TokenizedSample],
    device: &Device,
    progress: &dyn Fn(u64),
) -> Result<Outcome> {
    if let Err(limit) = limits(spec, samples) {
        return Ok(Err(limit));
    }
    // Only some of them know that a head can be the embedding.
    if spec.tied
        && let Some(embedding) = tensors.get("model.embed_tokens.weight").cloned()
    {
        tensors.insert("lm_head.weight".to_owned(), embedding);
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, device);
    let mut losses = Vec::with_capacity(samples.len());
    for sample in samples {
        losses.push(loss(&weights, spec, sample, device)?);
        progress(sample.ids.len() as u64);
    }
    Ok(Ok(losses))
}

fn loss(
    weights: &VarBuilder<'_>,
    spec: &DecoderSpec,
    sample: &TokenizedSample,
    device: &Device,
) -> Result<f64> {
    if sample.ids.iter().any(|&id| id as usize >= spec.vocab_size) {
        return Ok(f64::INFINITY);
    }
    let rows = sample.scored_rows();
    if rows.is_empty() {
        return Ok(f64::NAN);
    }
    // Some can't forget a sequence, and a model made of tensors that are there costs little.
    let mut reference = Reference::new(weights.clone(), spec, sample.ids.len(), device)?;
    let (mut seen, mut sum) = (0, 0.0);
    let count = rows.len() as f64;
    for row in rows {
        let input = Tensor::new(&sample.ids[seen..=row], device)?.unsqueeze(0)?;
        let logits = reference.forward(&input, seen)?.flatten_all()?;
        let target = sample.ids[row + 1] as usize;
        let log = log_softmax(&logits, 0)?.get(target)?;
        sum -= f64::from(log.to_scalar::<f32>()?);
        seen = row + 1;
    }
    Ok(sum / count)
}

enum Reference {
    Llama(llama::Llama, Box<llama::Cache>),
    Mistral(mistral::Model),
    StableLm(stable_lm::Model),
    Gemma(gemma::Model),
    Qwen2(qwen2::ModelForCausalLM),
}

impl Reference {
    /// Makes a model for one sequence of at most `positions` tokens.
    fn new(
        weights: VarBuilder<'_>,
        spec: &DecoderSpec,
        positions: usize,
        device: &Device,
    ) -> Result<Self> {
        let (Norm::Rms { eps } | Norm::RmsPlusOne { eps } | Norm::Layer { eps }) = spec.norm;
        let act = activation(spec.activation).map_err(Error::msg)?;
        Ok(match spec.architecture {
            Architecture::Llama => {
                let config = llama_config(spec, eps, positions);
                let cache = llama::Cache::new(true, DType::F32, &config, device)?;
                Self::Llama(llama::Llama::load(weights, &config)?, Box::new(cache))
            }
            Architecture::Mistral => {
                let config = mistral::Config {
                    vocab_size: spec.vocab_size,
                    hidden_size: spec.hidden_size,
                    intermediate_size: spec.intermediate_size,
                    num_hidden_layers: spec.layers,
                    num_attention_heads: spec.heads,
                    head_dim: Some(spec.head_dim),
                    num_key_value_heads: spec.kv_heads,
                    hidden_act: act,
                    max_position_embeddings: positions,
                    rms_norm_eps: eps,
                    rope_theta: spec.rotary.theta,
                    sliding_window: None,
                    use_flash_attn: false,
                };
                Self::Mistral(mistral::Model::new(&config, weights)?)
            }
            Architecture::StableLm => {
                // Its fields can be set by deserializing only.
                let config: stable_lm::Config = serde_json::from_value(json!({
                    "vocab_size": spec.vocab_size,
                    "hidden_size": spec.hidden_size,
                    "intermediate_size": spec.intermediate_size,
                    "num_hidden_layers": spec.layers,
                    "num_attention_heads": spec.heads,
                    "num_key_value_heads": spec.kv_heads,
                    "hidden_act": act,
                    "partial_rotary_factor": spec.rotary.dims as f64 / spec.head_dim as f64,
                    "rope_theta": spec.rotary.theta,
                    "max_position_embeddings": positions,
                    "layer_norm_eps": eps,
                    "use_cache": true,
                    "use_qkv_bias": spec.qkv_bias,
                }))
                .map_err(Error::wrap)?;
                Self::StableLm(stable_lm::Model::new(&config, weights)?)
            }
            Architecture::Gemma => {
                let config = gemma::Config {
                    attention_bias: spec.qkv_bias,
                    head_dim: spec.head_dim,
                    hidden_act: None,
                    hidden_activation: Some(act),
                    hidden_size: spec.hidden_size,
                    intermediate_size: spec.intermediate_size,
                    num_attention_heads: spec.heads,
                    num_hidden_layers: spec.layers,
                    num_key_value_heads: spec.kv_heads,
                    rms_norm_eps: eps,
                    rope_theta: spec.rotary.theta,
                    vocab_size: spec.vocab_size,
                    max_position_embeddings: positions,
                };
                Self::Gemma(gemma::Model::new(false, &config, weights)?)
            }
            Architecture::Qwen2 => {
                let config = qwen2::Config {
                    vocab_size: spec.vocab_size,
                    hidden_size: spec.hidden_size,
                    intermediate_size: spec.intermediate_size,
                    num_hidden_layers: spec.layers,
                    num_attention_heads: spec.heads,
                    num_key_value_heads: spec.kv_heads,
                    max_position_embeddings: positions,
                    sliding_window: positions,
                    max_window_layers: 0,
                    tie_word_embeddings: spec.tied,
                    rope_theta: spec.rotary.theta,
                    rms_norm_eps: eps,
                    use_sliding_window: false,
                    hidden_act: act,
                };
                Self::Qwen2(qwen2::ModelForCausalLM::new(&config, weights)?)
            }
            Architecture::Qwen3 | Architecture::Gemma2 | Architecture::Phi3 => {
                candle_core::bail!("{} has no reference", spec.architecture)
            }
        })
    }

    /// Returns the logits that follow `input` (`[1, tokens]`), of which `seen` tokens came before.
    fn forward(&mut self, input: &Tensor, seen: usize) -> Result<Tensor> {
        match self {
            Self::Llama(model, cache) => model.forward(input, seen, cache),
            Self::Mistral(model) => model.forward(input, seen),
            Self::StableLm(model) => model.forward(input, seen),
            Self::Gemma(model) => model.forward(input, seen),
            Self::Qwen2(model) => model.forward(input, seen),
        }
    }
}

fn llama_config(spec: &DecoderSpec, eps: f64, positions: usize) -> llama::Config {
    let rope_scaling = match spec.rotary.scaling {
        RotaryScaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => Some(llama::Llama3RopeConfig {
            factor: factor as f32,
            low_freq_factor: low as f32,
            high_freq_factor: high as f32,
            original_max_position_embeddings: original as usize,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
        _ => None,
    };
    llama::Config {
        hidden_size: spec.hidden_size,
        intermediate_size: spec.intermediate_size,
        vocab_size: spec.vocab_size,
        num_hidden_layers: spec.layers,
        num_attention_heads: spec.heads,
        num_key_value_heads: spec.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: eps,
        rope_theta: spec.rotary.theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: positions,
        tie_word_embeddings: spec.tied,
    }
}

/// Says what of a model the reference leaves out, if anything.
fn limits(spec: &DecoderSpec, samples: &[TokenizedSample]) -> std::result::Result<(), String> {
    let architecture = spec.architecture;
    let is = |one| architecture == one;
    let longest = samples.iter().map(|sample| sample.ids.len()).max();
    let windowed = spec
        .window
        .as_ref()
        .is_some_and(|window| longest.unwrap_or(0) > window.left + 1);
    let scaled = match spec.rotary.scaling {
        RotaryScaling::None => false,
        RotaryScaling::Llama3 { .. } => !is(Architecture::Llama),
        RotaryScaling::Linear { .. }
        | RotaryScaling::Dynamic { .. }
        | RotaryScaling::Yarn(_)
        | RotaryScaling::Long(_) => true,
    };
    let own_width = matches!(architecture, Architecture::Mistral | Architecture::Gemma);
    let left_out = [
        (windowed, "sliding windows shorter than a sample"),
        (scaled, "this scaling of rotary embeddings"),
        (
            !own_width && spec.head_dim * spec.heads != spec.hidden_size,
            "heads of a width of their own",
        ),
        (
            !is(Architecture::StableLm) && spec.rotary.dims != spec.head_dim,
            "partly rotated heads",
        ),
        (
            spec.qkv_bias && matches!(architecture, Architecture::Llama | Architecture::Mistral),
            "biases of the attention",
        ),
        (
            is(Architecture::Qwen2) && !spec.qkv_bias,
            "attention without biases",
        ),
        (
            spec.o_bias != (is(Architecture::Gemma) && spec.qkv_bias),
            "this choice of biases of the attention",
        ),
        (spec.mlp_bias, "biases of the feed-forward block"),
        (spec.head_norms != HeadNorms::None, "norms of heads"),
        (spec.parallel_residual, "parallel residuals"),
        (is(Architecture::Gemma) && !spec.tied, "a head of its own"),
        (
            is(Architecture::Llama) && spec.activation != Activation::Silu,
            "another activation than silu",
        ),
    ];
    if matches!(
        architecture,
        Architecture::Qwen3 | Architecture::Gemma2 | Architecture::Phi3
    ) {
        return Err(format!("{architecture} has no second implementation here"));
    }
    if let Some((_, what)) = left_out.iter().find(|(is, _)| *is) {
        return Err(format!(
            "candle-transformers' {architecture} leaves out {what}"
        ));
    }
    activation(spec.activation).map(drop)
}

fn activation(of: Activation) -> std::result::Result<Act, String> {
    Ok(match of {
        Activation::Silu => Act::Silu,
        Activation::Gelu => Act::Gelu,
        Activation::GeluTanh => Act::GeluPytorchTanh,
        Activation::Relu => Act::Relu,
        Activation::ReluSquared => Act::Relu2,
        Activation::Relu6 => Act::Relu6,
        Activation::ReluLeaky => Act::LeakyRelu(0.01),
        Activation::Sigmoid => Act::Sigmoid,
        other => return Err(format!("candle-transformers leaves out {other:?}")),
    })
}

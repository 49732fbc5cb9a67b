//! Continuing a prompt, token by token.

use candle_core::{DType, Result};
use candle_transformers::{
    generation::{LogitsProcessor, Sampling},
    utils::apply_repeat_penalty,
};
use model::Fault;

use crate::{
    batch::{Batch, Tokens},
    decoder::Model,
    fault,
    rotary::Tables,
};

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Probabilities are sharpened (below 1) or flattened (above).
    pub temperature: f64,
    /// Only the likeliest tokens that together are this likely are drawn.
    pub top_p: f64,
    /// Only this many of the likeliest tokens are drawn.
    pub top_k: usize,
    /// Logits of tokens that were already there are divided by this.
    pub repetition_penalty: f32,
    /// Most tokens in all, those of the prompt included.
    pub max_tokens: usize,
    /// Equal seeds draw equal tokens on one device.
    pub seed: u64,
    /// Tokens that end the answer.
    pub stop: Vec<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_p: 0.95,
            top_k: 40,
            repetition_penalty: 1.1,
            max_tokens: 2048,
            seed: 0,
            stop: Vec::new(),
        }
    }
}

/// Continues a prompt; returns the new tokens, without the one that ended them.
///
/// `progress` is called once per token. A prompt that is empty, as long as allowed, or has ids
/// beyond the vocabulary is not continued.
///
/// # Errors
/// Only the machine's.
pub fn generate(
    model: &Model,
    prompt: &[u32],
    options: &Options,
    progress: impl FnMut() + Send,
) -> std::result::Result<Vec<u32>, Fault> {
    let vocabulary = model.spec().vocab_size as u32;
    if prompt.is_empty() || prompt.iter().any(|&id| id >= vocabulary) {
        return Ok(Vec::new());
    }
    candle_core::utils::with_threadpool(|| draw(model, prompt, options, progress))
        .map_err(|error| fault::of_tensors(&error))
}

fn draw(
    model: &Model,
    prompt: &[u32],
    options: &Options,
    mut progress: impl FnMut(),
) -> Result<Vec<u32>> {
    let sampling = Sampling::TopKThenTopP {
        k: options.top_k,
        p: options.top_p,
        temperature: options.temperature,
    };
    let mut processor = LogitsProcessor::from_sampling(options.seed, sampling);
    let mut tables = Tables::new(&model.spec().rotary);
    let mut cache = model.new_cache();
    let mut ids = prompt.to_vec();
    let mut seen = 0;
    while ids.len() < options.max_tokens {
        let batch = newest(model, &mut tables, &ids, seen)?;
        seen = ids.len();
        let hidden = model.forward(&batch, Some(&mut cache))?;
        let logits = model.logits(&hidden)?.squeeze(0)?.to_dtype(DType::F32)?;
        let logits = apply_repeat_penalty(&logits, options.repetition_penalty, &ids)?;
        // Not a number among the weights leaves nothing to draw from.
        if !logits.max(0)?.to_scalar::<f32>()?.is_finite() {
            break;
        }
        let next = processor.sample(&logits)?;
        if options.stop.contains(&next) {
            break;
        }
        ids.push(next);
        progress();
    }
    Ok(ids.split_off(prompt.len()))
}

/// Makes a batch of the tokens not yet seen; only the last one's hidden state is wanted.
fn newest(model: &Model, tables: &mut Tables<'_>, ids: &[u32], seen: usize) -> Result<Batch> {
    let device = model.device();
    let new = ids.len() - seen;
    let rows = tables.rows(std::iter::once((seen, new, None)));
    let tokens = Tokens {
        ids: ids[seen..].to_vec(),
        rows: vec![new as u32 - 1],
        lengths: vec![new],
        seen,
        ..Tokens::default()
    };
    Batch::new(tokens, rows, model.dtype(), device)
}

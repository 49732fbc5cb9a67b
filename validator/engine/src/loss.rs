//! Losses of tokenized samples: the head on scored rows only, in chunks, log-softmax in f32.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};
use model::{Fault, MachineFaultKind, PackingPlan, TokenizedSample, protocol::Counters};

use crate::{
    batch::{Batch, Tokens},
    cpu::cross_entropy::HeadCrossEntropy,
    decoder::Model,
    fault,
    rotary::{Stretch, Tables, stretches},
    teams,
};
#[cfg(feature = "cuda")]
use crate::{cuda::kernels::CrossEntropy, device::moved};

/// Most rows of logits that exist at the same time on a GPU.
#[cfg(feature = "cuda")]
const HEAD_ROWS: usize = 4096;

/// Most logits that exist at the same time on a GPU, 1 GiB in 16 bits, unless that were fewer than 256 rows. Fewer
/// rows make products slower.
#[cfg(feature = "cuda")]
const GPU_LOGITS: usize = 512 << 20;

/// Tokens that go through the decoder together on the CPU: more only fill its caches.
const CPU_TOKENS: usize = 512;

/// Bytes that the activations of all parts in work on the CPU may take, unless one alone takes more.
const CPU_ACTIVATIONS: usize = 160 << 20;

/// Losses of samples, and what it took to compute them.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// Loss per sample: NaN where no label is left, +inf where an id is beyond the vocabulary.
    pub losses: Vec<f64>,
    pub counters: Counters,
}

/// Whether StableLM's loss is rounded as transformers 4.40 rounds it in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// As the reference does: each log-probability and their mean, to the dtype of the logits.
    #[default]
    AsReference,
    /// Not at all.
    Exact,
}

/// Computes the loss of each sample, pack by pack, on all copies of a model at the same time; `progress` is told of each
/// further number of tokens that are done, from any thread. Which copy computes a pack changes no bit.
///
/// # Errors
/// Only the machine's: what a model or a sample can be at fault for shows in the losses.
pub fn evaluate(
    copies: &[Model],
    samples: &[TokenizedSample],
    plan: &PackingPlan,
    rounding: Rounding,
    progress: impl Fn(u64) + Sync,
) -> std::result::Result<Losses, Fault> {
    let Some(model) = copies.first() else {
        return Err(Fault::machine(
            MachineFaultKind::Bug,
            "no model to evaluate",
        ));
    };
    let evaluator = Evaluator::new(model, samples, rounding);
    let parts = evaluator.parts(plan);
    let teams = if model.device().is_cpu() {
        evaluator.teams(&parts)
    } else {
        copies.len()
    };
    let own = |team: usize| {
        let model = &copies[team % copies.len()];
        (model, Tables::new(&model.spec().rotary))
    };
    teams::share(&parts, teams, own, |(model, tables), part| {
        evaluator.part(model, part, tables)?;
        progress(evaluator.tokens(part) as u64);
        Ok(())
    })
    .map_err(|error| fault::of_tensors(&error))?;
    Ok(evaluator.finish())
}

struct Evaluator<'a> {
    /// One of the copies, for what is the same of all.
    model: &'a Model,
    samples: &'a [TokenizedSample],
    stretches: Vec<Stretch>,
    rounding: Rounding,
    done: Mutex<Losses>,
}

impl<'a> Evaluator<'a> {
    fn new(model: &'a Model, samples: &'a [TokenizedSample], rounding: Rounding) -> Self {
        // A sample that fails in the embedding never gets as far as the rotation.
        let spec = model.spec();
        let known = |sample: &TokenizedSample| is_known(sample, spec.vocab_size);
        let length = |sample| if known(sample) { sample.ids.len() } else { 0 };
        let loss = |sample| {
            if known(sample) {
                f64::NAN
            } else {
                f64::INFINITY
            }
        };
        let counters = Counters {
            tokens: samples.iter().map(|sample| sample.ids.len() as u64).sum(),
            ..Counters::default()
        };
        Self {
            model,
            samples,
            stretches: stretches(spec, samples.iter().map(length)),
            rounding,
            done: Mutex::new(Losses {
                losses: samples.iter().map(loss).collect(),
                counters,
            }),
        }
    }

    fn tokens(&self, part: &[usize]) -> usize {
        part.iter()
            .map(|&sample| self.samples[sample].ids.len())
            .sum()
    }

    /// Returns what goes through the decoder together: on the CPU, packs are split.
    fn parts<'p>(&self, plan: &'p PackingPlan) -> Vec<&'p [usize]> {
        let limit = if self.model.device().is_cpu() {
            CPU_TOKENS
        } else {
            usize::MAX
        };
        let packs = plan.packs().iter();
        packs.flat_map(|pack| self.split(pack, limit)).collect()
    }

    /// Splits a pack into runs of at most `limit` tokens, or one sample.
    fn split<'p>(&self, mut pack: &'p [usize], limit: usize) -> Vec<&'p [usize]> {
        let mut parts = Vec::new();
        while !pack.is_empty() {
            let mut tokens = 0;
            let fits = pack.iter().take_while(|&&sample| {
                tokens += self.samples[sample].ids.len();
                tokens <= limit
            });
            let (part, rest) = pack.split_at(fits.count().max(1));
            parts.push(part);
            pack = rest;
        }
        parts
    }

    /// Returns how many parts may be in work at the same time on the CPU.
    fn teams(&self, parts: &[&[usize]]) -> usize {
        let spec = self.model.spec();
        let attention = (spec.heads + 2 * spec.kv_heads) * spec.head_dim;
        let width = 4 * spec.hidden_size + 2 * attention + 3 * spec.intermediate_size;
        let longest = parts
            .iter()
            .map(|part| self.tokens(part))
            .max()
            .unwrap_or(0);
        CPU_ACTIVATIONS / (longest * width * size_of::<f32>()).max(1)
    }

    /// Computes the losses of samples that share a forward pass.
    fn part(&self, model: &Model, part: &[usize], tables: &mut Tables<'_>) -> Result<()> {
        let mut tokens = Tokens::default();
        let mut means: Vec<(usize, Range<usize>)> = Vec::with_capacity(part.len());
        for &index in part {
            let sample = &self.samples[index];
            let scored = sample.scored_rows();
            if scored.is_empty() || !is_known(sample, model.spec().vocab_size) {
                continue;
            }
            let (before, first) = (tokens.ids.len(), tokens.rows.len());
            tokens
                .rows
                .extend(scored.clone().map(|row| (before + row) as u32));
            tokens.targets.extend(scored.map(|row| sample.ids[row + 1]));
            tokens.ids.extend_from_slice(&sample.ids);
            tokens.lengths.push(sample.ids.len());
            means.push((index, first..tokens.rows.len()));
        }
        if means.is_empty() {
            return Ok(());
        }
        let computed = tokens.ids.len() as u64;
        let positions = means
            .iter()
            .map(|&(index, _)| (0, self.samples[index].ids.len(), self.stretches[index]));
        let tables = tables.rows(positions);
        let targets = tokens.targets.clone();
        let batch = Batch::new(tokens, tables, model.dtype(), model.device())?;
        let hidden = model.forward(&batch, None)?;
        let losses = row_losses(model, &hidden, &batch, &targets)?;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.counters.computed_tokens += computed;
        done.counters.scored_rows += targets.len() as u64;
        done.counters.head_rows += hidden.dim(0)? as u64;
        for (index, rows) in means {
            done.losses[index] = self.mean(&losses[rows]);
        }
        Ok(())
    }

    fn finish(self) -> Losses {
        self.done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn mean(&self, losses: &[f32]) -> f64 {
        let round = |loss: f64| match self.model.dtype() {
            DType::BF16 => bf16::from_f64(loss).to_f64(),
            DType::F16 => f16::from_f64(loss).to_f64(),
            _ => f64::from(loss as f32),
        };
        let rounded =
            self.model.spec().loss_in_logits_dtype && self.rounding == Rounding::AsReference;
        let count = losses.len() as f64;
        if rounded {
            round(
                losses
                    .iter()
                    .map(|&loss| round(f64::from(loss)))
                    .sum::<f64>()
                    / count,
            )
        } else {
            f64::from((losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / count) as f32)
        }
    }
}

/// Computes the loss of each row of final hidden states.
fn row_losses(model: &Model, hidden: &Tensor, batch: &Batch, targets: &[u32]) -> Result<Vec<f32>> {
    #[cfg(feature = "cuda")]
    if hidden.device().is_cuda() {
        let chunk = (GPU_LOGITS / model.spec().vocab_size).clamp(256, HEAD_ROWS);
        // Nothing is waited for until all is on its way.
        let targets = moved(&batch.targets, hidden.device())?;
        let rows = targets.dim(0)?;
        let losses = (0..rows).step_by(chunk).map(|first| {
            let count = chunk.min(rows - first);
            let logits = model.logits(&hidden.narrow(0, first, count)?)?;
            logits.apply_op2_no_bwd(&targets.narrow(0, first, count)?, &CrossEntropy)
        });
        return Tensor::cat(&losses.collect::<Result<Vec<_>>>()?, 0)?.to_vec1();
    }
    #[cfg(not(feature = "cuda"))]
    let _ = batch;
    let cap = model.spec().logit_cap.map(|cap| cap as f32);
    let op = HeadCrossEntropy { targets, cap };
    hidden.apply_op2_no_bwd(model.head(), &op)?.to_vec1()
}

/// Whether the vocabulary has all ids of a sample.
fn is_known(sample: &TokenizedSample, vocabulary: usize) -> bool {
    sample.ids.iter().all(|&id| (id as usize) < vocabulary)
}

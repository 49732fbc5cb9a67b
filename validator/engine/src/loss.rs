//! Losses of tokenised samples: the head on scored rows only, in chunks, log-softmax in f32.

use std::ops::Range;

use candle_core::{DType, Result, Storage, Tensor};
use half::{bf16, f16};
use model::{Fault, PackingPlan, TokenizedSample, protocol::Counters};

use crate::{
    attention::{Rotation, Sequences},
    cpu::cross_entropy::cross_entropy,
    decoder::{Batch, Model},
    fault,
    rotary::{Stretch, Tables, stretches},
};

/// Most rows of logits that exist at the same time.
const HEAD_ROWS: usize = 2048;

/// Most logits that exist at the same time on the CPU, unless that were fewer than 256 rows.
const CPU_LOGITS: usize = 8 << 20;

/// The same on a GPU, where their loss takes a few copies in f32: 2 GiB in all.
const GPU_LOGITS: usize = 128 << 20;

/// Tokens that go through the decoder together on the CPU: more only fill its caches.
const CPU_TOKENS: usize = 2048;

/// Losses of samples, and what it took to compute them.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// Loss per sample: NaN where no label is left, +inf where an id is beyond the vocabulary.
    pub losses: Vec<f64>,
    /// What was computed.
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

/// Computes the loss of each sample, pack by pack; `progress` is told how many tokens are done.
///
/// # Errors
/// Only the machine's: what a model or a sample can be at fault for shows in the losses.
pub fn evaluate(
    model: &Model,
    samples: &[TokenizedSample],
    plan: &PackingPlan,
    rounding: Rounding,
    progress: impl FnMut(u64) + Send,
) -> std::result::Result<Losses, Fault> {
    candle_core::utils::with_threadpool(|| {
        Evaluator::new(model, samples, rounding, progress).run(plan)
    })
    .map_err(|error| fault::of_tensors(&error))
}

struct Evaluator<'a, P> {
    model: &'a Model,
    samples: &'a [TokenizedSample],
    stretches: Vec<Stretch>,
    tables: Tables<'a>,
    rounding: Rounding,
    progress: P,
    done: Losses,
}

impl<'a, P: FnMut(u64)> Evaluator<'a, P> {
    fn new(
        model: &'a Model,
        samples: &'a [TokenizedSample],
        rounding: Rounding,
        progress: P,
    ) -> Self {
        let spec = model.spec();
        let vocabulary = spec.vocab_size as u32;
        let losses = samples
            .iter()
            .map(|sample| {
                if sample.ids.iter().any(|&id| id >= vocabulary) {
                    f64::INFINITY
                } else {
                    f64::NAN
                }
            })
            .collect::<Vec<_>>();
        // A sample that fails in the embedding never gets as far as the rotation.
        let lengths = samples.iter().zip(&losses).map(|(sample, loss)| {
            if loss.is_infinite() {
                0
            } else {
                sample.ids.len()
            }
        });
        let stretches = stretches(spec, lengths);
        let tokens = samples.iter().map(|sample| sample.ids.len() as u64).sum();
        let counters = Counters {
            tokens,
            ..Counters::default()
        };
        let tables = Tables::new(&spec.rotary);
        let done = Losses { losses, counters };
        Self {
            model,
            samples,
            stretches,
            tables,
            rounding,
            progress,
            done,
        }
    }

    fn run(mut self, plan: &PackingPlan) -> Result<Losses> {
        let limit = if self.model.device().is_cpu() {
            CPU_TOKENS
        } else {
            usize::MAX
        };
        for pack in plan.packs() {
            let computable = |&&sample: &&usize| {
                !self.samples[sample].scored_rows().is_empty() && self.done.losses[sample].is_nan()
            };
            let computed: Vec<usize> = pack.iter().filter(computable).copied().collect();
            for part in self.split(&computed, limit) {
                self.pack(part)?;
            }
            let all: usize = pack
                .iter()
                .map(|&sample| self.samples[sample].ids.len())
                .sum();
            (self.progress)(all as u64);
        }
        Ok(self.done)
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

    /// Computes the losses of samples that share a forward pass.
    fn pack(&mut self, pack: &[usize]) -> Result<()> {
        let mut ids = Vec::new();
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        let mut means: Vec<(usize, Range<usize>)> = Vec::with_capacity(pack.len());
        for &index in pack {
            let sample = &self.samples[index];
            let scored = sample.scored_rows();
            let first = rows.len();
            rows.extend(scored.clone().map(|row| (ids.len() + row) as u32));
            targets.extend(scored.map(|row| sample.ids[row + 1]));
            ids.extend_from_slice(&sample.ids);
            means.push((index, first..rows.len()));
        }
        self.done.counters.computed_tokens += ids.len() as u64;
        self.done.counters.scored_rows += rows.len() as u64;
        let batch = self.batch(pack, ids, rows)?;
        let hidden = self.model.forward(&batch, None)?;
        let losses = self.row_losses(&hidden, &targets)?;
        for (index, rows) in means {
            self.done.losses[index] = self.mean(&losses[rows]);
        }
        Ok(())
    }

    fn batch(&mut self, pack: &[usize], ids: Vec<u32>, rows: Vec<u32>) -> Result<Batch> {
        let device = self.model.device();
        let tokens = ids.len();
        let length = |&sample: &usize| self.samples[sample].ids.len();
        let positions = pack
            .iter()
            .map(|sample| (0, length(sample), self.stretches[*sample]));
        let tables = self.tables.rows(positions);
        Ok(Batch {
            ids: Tensor::new(ids, device)?,
            rotation: Rotation::new(tables, tokens, self.model.dtype(), device)?,
            sequences: Sequences::new(pack.iter().map(length), 0, device)?,
            rows: Tensor::new(rows, device)?,
        })
    }

    /// Computes the loss of each row of final hidden states.
    fn row_losses(&mut self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
        let most = if hidden.device().is_cpu() {
            CPU_LOGITS
        } else {
            GPU_LOGITS
        };
        let chunk = (most / self.model.spec().vocab_size).clamp(256, HEAD_ROWS);
        let head = self.model.head().t()?;
        let mut losses = Vec::with_capacity(targets.len());
        for (i, targets) in targets.chunks(chunk).enumerate() {
            let logits = hidden.narrow(0, i * chunk, targets.len())?.matmul(&head)?;
            self.done.counters.head_rows += targets.len() as u64;
            losses.extend(nll(&logits, targets)?);
        }
        Ok(losses)
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

/// Returns `-log softmax(row)[target]` of each row of logits.
fn nll(logits: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    if logits.device().is_cpu() {
        let (storage, layout) = logits.storage_and_layout();
        if let Storage::Cpu(storage) = &*storage {
            return cross_entropy(storage, layout, targets);
        }
    }
    let logits = logits.to_dtype(DType::F32)?;
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let target = logits.gather(&targets, 1)?.squeeze(1)?;
    (logits.log_sum_exp(1)? - target)?.to_vec1()
}

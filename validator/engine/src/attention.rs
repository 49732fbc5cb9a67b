//! Causal attention over packed sequences, on any device.
//!
//! Three ways lead to the same numbers, up to rounding: blocks on the CPU, one kernel on CUDA,
//! and plain matrix products in chunks of queries everywhere.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{ops::softmax_last_dim, rotary_emb::rope_thd};
use model::{Attention, config::AttentionScores};

#[cfg(feature = "cuda")]
use crate::cuda::kernels;
use crate::{cpu::attention::PackedAttention, device::moved, heads::Heads};

/// Queries whose scores exist at the same time in the unfused way.
const CHUNK: usize = 256;

/// Which way attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Blocks on the CPU, whose scores are f32.
    Blocks,
    /// One kernel on CUDA.
    #[cfg(feature = "cuda")]
    Fused,
    /// Matrix products and a softmax in f32.
    Unfused,
}

impl Way {
    /// Chooses the way for what was asked; also says what replaces it if it can't be had.
    pub(crate) fn choose(
        asked: Attention,
        dtype: DType,
        (head_dim, scores): (usize, AttentionScores),
        device: &Device,
    ) -> (Self, Option<String>) {
        if device.is_cpu() {
            // In 16 bits eager attention rounds scores and weights, which blocks don't.
            let rounds = asked == Attention::Eager && dtype != DType::F32;
            return (if rounds { Self::Unfused } else { Self::Blocks }, None);
        }
        if scores.cap.is_some() || (scores.scalar - head_dim as f64).abs() > 0.0 {
            let replaced = (asked != Attention::Eager)
                .then(|| format!("{asked} knows no scores of this kind; eager is used"));
            return (Self::Unfused, replaced);
        }
        #[cfg(feature = "cuda")]
        if asked != Attention::Eager && kernels::can_attend(dtype, head_dim) {
            return (Self::Fused, None);
        }
        let needs = "needs heads of at most 256 dimensions, by eights in 16 bits";
        let replaced = (asked != Attention::Eager)
            .then(|| format!("{asked} {needs}; for {dtype:?} and {head_dim} eager is used"));
        (Self::Unfused, replaced)
    }
}

/// What a token sees of its sequence, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// How many tokens before itself, if not all.
    pub(crate) window: Option<usize>,
    pub(crate) scores: AttentionScores,
}

/// Squashes numbers to less than a cap, each step rounded as in the reference.
pub(crate) fn capped(x: &Tensor, cap: f64) -> Result<Tensor> {
    (x / cap)?.tanh()? * cap
}

/// Where each sequence of a pack begins and ends.
#[derive(Debug)]
pub(crate) struct Sequences {
    pub(crate) spans: Arc<[Range<usize>]>,
    /// Tokens of the longest sequence, those seen before included.
    longest: usize,
    /// Masks for the unfused way, by window: made when first needed.
    bands: Mutex<BTreeMap<Option<usize>, Tensor>>,
    /// The work list of the one kernel, on the device.
    pub(crate) work: Option<Tensor>,
}

impl Sequences {
    /// Lays sequences of the given lengths one after another. `seen` tokens of each came before. Also returns the
    /// work list of the one kernel, to be brought to the device and put here.
    pub(crate) fn new(lengths: &[usize], seen: usize, device: &Device) -> (Self, Vec<u32>) {
        let mut end = 0;
        let spans: Arc<[Range<usize>]> = lengths
            .iter()
            .map(|length| {
                let start = end;
                end += length;
                start..end
            })
            .collect();
        #[cfg(feature = "cuda")]
        let work = if device.is_cuda() {
            kernels::attention_work(&spans)
        } else {
            Vec::new()
        };
        #[cfg(not(feature = "cuda"))]
        let (work, _) = (Vec::new(), device);
        let sequences = Self {
            longest: seen + spans.iter().map(Range::len).max().unwrap_or(0),
            bands: Mutex::default(),
            work: None,
            spans,
        };
        (sequences, work)
    }

    /// Brings what is on a device to another one.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            spans: self.spans.clone(),
            longest: self.longest,
            bands: Mutex::default(),
            work: self
                .work
                .as_ref()
                .map(|work| moved(work, device))
                .transpose()?,
        })
    }

    /// Returns what is added to the scores of a chunk of queries: zero for what they see, minus
    /// infinity for the rest. Columns are keys, counted from `longest` before the first query, so
    /// that one band serves every chunk.
    fn band(&self, window: Option<usize>, device: &Device) -> Result<Tensor> {
        let mut bands = self.bands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(band) = bands.get(&window) {
            return Ok(band.clone());
        }
        let before = self.longest;
        let columns = before + CHUNK;
        let hidden = |row: usize, column: usize| {
            let row = before + row;
            column > row || window.is_some_and(|left| row - column > left)
        };
        let band: Vec<f32> = (0..CHUNK)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| {
                if hidden(row, column) {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let band = Tensor::from_vec(band, (CHUNK, columns), device)?;
        bands.insert(window, band.clone());
        Ok(band)
    }
}

/// Cosines and sines of a pack's positions, `[tokens, rotated / 2]` each.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Rotation {
    /// Brings the tables of so many tokens to the device.
    pub(crate) fn new(
        (cos, sin): (Vec<f32>, Vec<f32>),
        tokens: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let half = cos.len() / tokens.max(1);
        // Empty tables are never read, and a GPU knows no empty memory.
        let device = if half == 0 { &Device::Cpu } else { device };
        let both = Tensor::from_vec([cos, sin].concat(), (2 * tokens, half), &Device::Cpu)?;
        // Rounded here, so that half as much is brought there and nothing launched.
        let both = both.to_dtype(dtype)?.to_device(device)?;
        Ok(Self {
            cos: both.narrow(0, 0, tokens)?,
            sin: both.narrow(0, tokens, tokens)?,
        })
    }

    /// Brings the tables to another device, unless they are empty.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        if self.cos.elem_count() == 0 {
            return Ok(self.clone());
        }
        Ok(Self {
            cos: moved(&self.cos, device)?,
            sin: moved(&self.sin, device)?,
        })
    }
}

/// Keys and values of one layer seen so far, `[tokens, heads, dim]` each.
pub(crate) type KeysAndValues = Option<(Tensor, Tensor)>;

/// Splits `[tokens, queries | keys | values]` into three of `[tokens, heads, dim]`.
pub(crate) fn split(qkv: &Tensor, heads: Heads) -> Result<(Tensor, Tensor, Tensor)> {
    let tokens = qkv.dim(0)?;
    let part = |first: usize, count: usize| {
        qkv.narrow(1, first * heads.dim, count * heads.dim)?
            .contiguous()?
            .reshape((tokens, count, heads.dim))
    };
    Ok((
        part(0, heads.queries)?,
        part(heads.queries, heads.keys)?,
        part(heads.queries + heads.keys, heads.keys)?,
    ))
}

/// Attends within each sequence, and may rotate `qkv` in place: from `[tokens, queries | keys | values]` to
/// `[tokens, queries * dim]`.
pub(crate) fn attend(
    way: Way,
    qkv: &Tensor,
    rotation: &Rotation,
    sequences: &Sequences,
    heads: Heads,
    reach: Reach,
) -> Result<Tensor> {
    let window = reach.window;
    if way == Way::Blocks {
        let attention = PackedAttention {
            heads: heads.queries,
            kv_heads: heads.keys,
            head_dim: heads.dim,
            sequences: sequences.spans.clone(),
            window,
            scores: reach.scores,
        };
        return qkv.apply_op3_no_bwd(&rotation.cos, &rotation.sin, &attention);
    }
    #[cfg(feature = "cuda")]
    if way == Way::Fused {
        if rotation.cos.dim(1)? > 0 {
            qkv.inplace_op3(&rotation.cos, &rotation.sin, &kernels::Rotate(heads))?;
        }
        let Some(work) = &sequences.work else {
            candle_core::bail!("no work list for the kernel")
        };
        let attend = kernels::Attend {
            heads,
            window,
            longest: sequences.longest,
        };
        return qkv.apply_op2_no_bwd(work, &attend);
    }
    let (q, k, v) = split(qkv, heads)?;
    let (q, k) = (rotate(&q, rotation)?, rotate(&k, rotation)?);
    let band = sequences.band(window, qkv.device())?;
    let mut parts = Vec::with_capacity(sequences.spans.len());
    for span in sequences.spans.iter() {
        let of = |x: &Tensor| x.narrow(0, span.start, span.len());
        let qkv = [of(&q)?, of(&k)?, of(&v)?];
        parts.push(unfused(&qkv, heads, reach.scores, &band)?);
    }
    Tensor::cat(&parts, 0)
}

/// Attends from the newest tokens of one sequence to all of it, and remembers keys and values.
pub(crate) fn attend_cached(
    qkv: &Tensor,
    rotation: &Rotation,
    sequences: &Sequences,
    seen: &mut KeysAndValues,
    heads: Heads,
    reach: Reach,
) -> Result<Tensor> {
    let (q, k, v) = split(qkv, heads)?;
    let (q, k) = (rotate(&q, rotation)?, rotate(&k, rotation)?);
    let (k, v) = match seen.take() {
        Some((keys, values)) => (
            Tensor::cat(&[&keys, &k], 0)?,
            Tensor::cat(&[&values, &v], 0)?,
        ),
        None => (k, v),
    };
    let band = sequences.band(reach.window, qkv.device())?;
    let out = unfused(&[q, k.clone(), v.clone()], heads, reach.scores, &band)?;
    *seen = Some((k, v));
    Ok(out)
}

/// Rotates the first dimensions of each head (`[tokens, heads, dim]`).
fn rotate(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let rotated = 2 * rotation.cos.dim(1)?;
    let dim = x.dim(D::Minus1)?;
    if rotated == 0 {
        return Ok(x.clone());
    }
    let turn = |x: &Tensor| rope_thd(&x.unsqueeze(0)?, &rotation.cos, &rotation.sin)?.squeeze(0);
    if rotated == dim {
        return turn(x);
    }
    let first = turn(&x.narrow(2, 0, rotated)?.contiguous()?)?;
    Tensor::cat(&[&first, &x.narrow(2, rotated, dim - rotated)?], 2)
}

/// Attends from the last tokens of one sequence (`q`) to all of it (`k`, `v`), in chunks of
/// queries. Heads that share a key head are stacked, so that keys are never copied per head.
fn unfused(
    [q, k, v]: &[Tensor; 3],
    heads: Heads,
    scores: AttentionScores,
    band: &Tensor,
) -> Result<Tensor> {
    let (new, group) = (q.dim(0)?, heads.queries / heads.keys);
    let before = k.dim(0)? - new;
    let k = k.transpose(0, 1)?.contiguous()?;
    let v = v.transpose(0, 1)?.contiguous()?;
    let scale = 1.0 / scores.scalar.sqrt();
    let cap = scores.cap;
    let mut parts = Vec::new();
    for from in (0..new).step_by(CHUNK) {
        let rows = CHUNK.min(new - from);
        let first = before + from;
        let keys = first + rows;
        let chunk = q
            .narrow(0, from, rows)?
            .reshape((rows, heads.keys, group, heads.dim))?
            .permute((1, 2, 0, 3))?
            .contiguous()?
            .reshape((heads.keys, group * rows, heads.dim))?;
        let scores = chunk.matmul(&k.narrow(1, 0, keys)?.t()?)?;
        let mask = band
            .narrow(0, 0, rows)?
            .narrow(1, band.dim(1)? - CHUNK - first, keys)?;
        let scores = (scores * scale)?;
        let scores = match cap {
            Some(cap) => capped(&scores, cap)?,
            None => scores,
        };
        let scores = scores
            .to_dtype(DType::F32)?
            .reshape((heads.keys, group, rows, keys))?
            .broadcast_add(&mask)?
            .reshape((heads.keys, group * rows, keys))?;
        let weights = softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        let out = weights
            .matmul(&v.narrow(1, 0, keys)?)?
            .reshape((heads.keys, group, rows, heads.dim))?
            .permute((2, 0, 1, 3))?
            .contiguous()?
            .reshape((rows, heads.queries * heads.dim))?;
        parts.push(out);
    }
    Tensor::cat(&parts, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys, queries and rotation of three sequences, the middle one of a single token.
    fn attended(way: Way, dtype: DType, heads: Heads, rotated: usize, reach: Reach) -> Vec<f32> {
        let device = &Device::Cpu;
        let lengths = [70, 1, 300];
        let tokens: usize = lengths.iter().sum();
        let wave = |rows: usize, columns: usize, step: f32| {
            let values = (0..rows * columns).map(|i| (i as f32 * step).sin());
            Tensor::from_vec(values.collect(), (rows, columns), device).unwrap()
        };
        let cast = |x: Tensor| x.to_dtype(dtype).unwrap();
        let qkv = wave(tokens, (heads.queries + 2 * heads.keys) * heads.dim, 0.713);
        let cos = wave(tokens, rotated / 2, 0.01);
        let rotation = Rotation {
            sin: cast((1.0 - cos.sqr().unwrap()).unwrap().sqrt().unwrap()),
            cos: cast(cos),
        };
        let (sequences, _) = Sequences::new(&lengths, 0, device);
        let out = attend(way, &cast(qkv), &rotation, &sequences, heads, reach).unwrap();
        let out = out.to_dtype(DType::F32).unwrap();
        out.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn both_ways_lead_to_the_same_numbers() {
        for (heads, rotated) in [
            (
                Heads {
                    queries: 6,
                    keys: 3,
                    dim: 8,
                },
                8,
            ),
            (
                Heads {
                    queries: 4,
                    keys: 1,
                    dim: 24,
                },
                6,
            ),
            (
                Heads {
                    queries: 2,
                    keys: 2,
                    dim: 10,
                },
                0,
            ),
        ] {
            for window in [None, Some(0), Some(5), Some(64), Some(1000)] {
                for cap in [None, Some(0.75)] {
                    let scalar = heads.dim as f64 * cap.map_or(1.0, |_| 1.7);
                    let reach = Reach {
                        window,
                        scores: AttentionScores { scalar, cap },
                    };
                    // In 16 bits the unfused way rounds scores and weights, which blocks don't.
                    for (dtype, apart) in
                        [(DType::F32, 1e-5), (DType::F16, 4e-3), (DType::BF16, 3e-2)]
                    {
                        let of = |way| attended(way, dtype, heads, rotated, reach);
                        let (blocks, unfused) = (of(Way::Blocks), of(Way::Unfused));
                        assert_eq!(blocks.len(), unfused.len());
                        for (a, b) in blocks.iter().zip(&unfused) {
                            let near = (a - b).abs() < apart;
                            assert!(near, "{dtype:?} {heads:?} {reach:?}: {a} and {b}");
                        }
                    }
                }
            }
        }
    }
}

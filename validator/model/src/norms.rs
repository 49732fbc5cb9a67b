//! The norm rule: Frobenius norms of six projections per layer, summed in f64, rounded, judged.
//!
//! [`FileNorms`] is fed a weights file as its bytes arrive, from a disk or a download, in pieces of
//! any size; nothing is kept but one sum per projection.

use std::{collections::BTreeMap, fmt};

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::{
    dtype::Dtype,
    header::{self, Header},
};

/// Limits of the norm rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormLimits {
    /// A norm above this counts as large.
    pub soft: f64,
    /// Mean over the projections of the share of layers with a large norm that is still accepted.
    pub soft_share: f64,
    /// A norm above this is refused.
    pub hard: f64,
}

impl Default for NormLimits {
    fn default() -> Self {
        Self {
            soft: 200.0,
            soft_share: 0.15,
            hard: 1000.0,
        }
    }
}

/// Rounds a norm to the dtype of the evaluation, as comparing it there does.
fn rounded(norm: f64, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(norm as f32),
        Dtype::Bf16 => bf16::from_f64(norm).to_f64(),
        Dtype::F16 => f16::from_f64(norm).to_f64(),
    }
}

/// A projection whose norm is looked at; the gate projection is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Projection {
    Q,
    K,
    V,
    O,
    Up,
    Down,
}

impl Projection {
    /// Every projection, in the order of a layer.
    pub const ALL: [Self; 6] = [Self::Q, Self::K, Self::V, Self::O, Self::Up, Self::Down];

    /// Returns the name of the projection's module.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Returns the layer and projection a tensor is the weight of.
    pub fn of_tensor(name: &str) -> Option<(usize, Self)> {
        let rest = name.strip_prefix("model.layers.")?;
        let (layer, rest) = rest.split_once('.')?;
        let module = rest.strip_suffix(".weight")?;
        let projection = Self::ALL.into_iter().find(|projection| {
            let folder = match projection {
                Self::Up | Self::Down => "mlp",
                _ => "self_attn",
            };
            module
                .strip_prefix(folder)
                .and_then(|module| module.strip_prefix('.'))
                .is_some_and(|module| module == projection.name())
        })?;
        let number: usize = layer.parse().ok()?;
        // "+1" and "01" parse as well, but name no layer.
        (number.to_string() == layer).then_some((number, projection))
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sum of squares of a tensor whose bytes arrive in pieces.
#[derive(Debug, Clone)]
struct SquareSum {
    dtype: header::Dtype,
    sum: f64,
    /// The start of an element whose end has not arrived.
    part: [u8; 8],
    part_len: usize,
}

impl SquareSum {
    const fn new(dtype: header::Dtype) -> Self {
        Self {
            dtype,
            sum: 0.0,
            part: [0; 8],
            part_len: 0,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        let size = self.dtype.bytes() as usize;
        if self.part_len > 0 {
            let taken = bytes.len().min(size - self.part_len);
            self.part[self.part_len..self.part_len + taken].copy_from_slice(&bytes[..taken]);
            self.part_len += taken;
            bytes = &bytes[taken..];
            if self.part_len < size {
                return;
            }
            self.sum += square_sum(self.dtype, &self.part[..size]);
            self.part_len = 0;
        }
        let whole = bytes.len() - bytes.len() % size;
        self.sum += square_sum(self.dtype, &bytes[..whole]);
        let rest = &bytes[whole..];
        self.part[..rest.len()].copy_from_slice(rest);
        self.part_len = rest.len();
    }
}

/// Returns the sum of squares of whole elements, in f64.
pub fn square_sum(dtype: header::Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        header::Dtype::F64 => sum::<8>(bytes, f64::from_le_bytes),
        header::Dtype::F32 => sum::<4>(bytes, |b| f64::from(f32::from_le_bytes(b))),
        header::Dtype::F16 => sum::<2>(bytes, |b| f16::from_le_bytes(b).to_f64()),
        // Shifting is all it takes, and keeps the loop free of branches on NaN.
        header::Dtype::BF16 => sum::<2>(bytes, |b| {
            f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
        }),
        // Rare: weights that were left in eight bits or as whole numbers, cast when they load.
        other => {
            let mut sum = 0.0;
            other.values(bytes, |value| sum += f64::from(value) * f64::from(value));
            sum
        }
    }
}

/// Sums in eight lanes, so that the additions need not wait for each other.
fn sum<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f64; LANES];
    let (elements, _) = bytes.as_chunks::<N>();
    let (groups, rest) = elements.as_chunks::<LANES>();
    for group in groups {
        for (lane, &element) in lanes.iter_mut().zip(group) {
            let value = value(element);
            *lane += value * value;
        }
    }
    for (lane, &element) in lanes.iter_mut().zip(rest) {
        let value = value(element);
        *lane += value * value;
    }
    lanes.iter().sum()
}

/// Norms of the projections of one weights file, taken as its bytes arrive.
#[derive(Debug)]
pub struct FileNorms {
    /// Tensors to come, the next one last: start and end in the file, and whose weight it is.
    ahead: Vec<(u64, u64, (usize, Projection), header::Dtype)>,
    current: Option<SquareSum>,
    position: u64,
    done: ProjectionNorms,
}

impl FileNorms {
    /// Prepares for the file of `header`, which names its tensors as the decoder does
    /// ([`crate::inventory::Inventory::header_of`]).
    pub fn new(header: &Header) -> Self {
        let start = header.data_start();
        let mut ahead: Vec<_> = header
            .in_file_order()
            .into_iter()
            .filter_map(|(name, info)| {
                let whose = Projection::of_tensor(name)?;
                Some((
                    start + info.bytes.start,
                    start + info.bytes.end,
                    whose,
                    info.dtype,
                ))
            })
            .collect();
        ahead.reverse();
        Self {
            ahead,
            current: None,
            position: 0,
            done: ProjectionNorms::default(),
        }
    }

    /// Takes the next bytes of the file, which starts with its header.
    pub fn update(&mut self, bytes: &[u8]) {
        let first = self.position;
        self.position += bytes.len() as u64;
        while let Some(&(start, end, whose, dtype)) = self.ahead.last() {
            if start > self.position || (start == self.position && start < end) {
                return;
            }
            let from = start.saturating_sub(first) as usize;
            let to = (end.min(self.position) - first) as usize;
            let sum = self.current.get_or_insert(SquareSum::new(dtype));
            sum.update(&bytes[from..to]);
            if end > self.position {
                return;
            }
            self.done.0.insert(whose, sum.sum.sqrt());
            self.current = None;
            self.ahead.pop();
        }
    }

    /// Returns the norms that are complete so far.
    pub const fn done(&self) -> &ProjectionNorms {
        &self.done
    }

    /// Returns the norms, or nothing if the file has not been fed to its end.
    pub fn finish(self) -> Option<ProjectionNorms> {
        self.ahead.is_empty().then_some(self.done)
    }
}

/// Frobenius norms by layer and projection, unrounded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProjectionNorms(BTreeMap<(usize, Projection), f64>);

impl ProjectionNorms {
    /// Adds the norms of another file of the same model.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns how many norms there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the norms, unrounded.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Projection, f64)> + '_ {
        self.0
            .iter()
            .map(|(&(layer, projection), &norm)| (layer, projection, norm))
    }

    /// Returns the norms, rounded to `dtype`.
    pub fn rounded(&self, dtype: Dtype) -> impl Iterator<Item = (usize, Projection, f64)> + '_ {
        self.0
            .iter()
            .map(move |(&(layer, projection), &norm)| (layer, projection, rounded(norm, dtype)))
    }

    /// Judges the norms of a model with `layers` layers, rounded to `dtype`.
    ///
    /// A norm that is NaN passes every comparison; an infinite one is refused.
    pub fn judge(&self, layers: usize, dtype: Dtype, limits: &NormLimits) -> NormVerdict {
        let mut large: BTreeMap<Projection, usize> = BTreeMap::new();
        for (layer, projection, norm) in self.rounded(dtype) {
            if layer >= layers {
                continue;
            }
            if norm > limits.hard {
                return NormVerdict::Hard {
                    layer,
                    projection,
                    norm,
                };
            }
            if norm > limits.soft {
                *large.entry(projection).or_default() += 1;
            }
        }
        let shares = large.values().map(|&count| count as f64 / layers as f64);
        let share = shares.sum::<f64>() / Projection::ALL.len() as f64;
        if share > limits.soft_share {
            NormVerdict::Soft { share }
        } else {
            NormVerdict::Accepted { share }
        }
    }
}

impl FromIterator<(usize, Projection, f64)> for ProjectionNorms {
    fn from_iter<I: IntoIterator<Item = (usize, Projection, f64)>>(norms: I) -> Self {
        Self(
            norms
                .into_iter()
                .map(|(layer, projection, norm)| ((layer, projection), norm))
                .collect(),
        )
    }
}

/// What the norm rule says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum NormVerdict {
    Accepted {
        /// Mean share of layers with a large norm.
        share: f64,
    },
    /// Too many large norms.
    Soft {
        /// Mean share of layers with a large norm.
        share: f64,
    },
    /// One norm is far too large.
    Hard {
        layer: usize,
        projection: Projection,
        /// The norm, rounded; may be infinite.
        norm: f64,
    },
}

impl NormVerdict {
    /// Whether the model is accepted.
    pub const fn accepted(self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

impl fmt::Display for NormVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. } => f.write_str("norms are within the limits"),
            Self::Soft { share } => {
                write!(
                    f,
                    "norms are large in {:.1} % of the projections",
                    share * 100.0
                )
            }
            Self::Hard {
                layer,
                projection,
                norm,
            } => {
                write!(f, "the norm of {projection} in layer {layer} is {norm}")
            }
        }
    }
}

#[cfg(test)]
mod tests;

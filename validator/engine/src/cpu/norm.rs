//! Norms over the last dimension, computed in f32 whatever the dtype.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, Layout, Result, Shape, WithDType, backend::BackendStorage,
};
use rayon::prelude::*;

use super::{Element, contiguous, rows_at_once, sum, vectorized};
use crate::dtype::by_type;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Root mean square; the normalized value is rounded before the weight is applied.
    Rms,
    /// Root mean square, with one already added to the weight; rounded once.
    RmsRoundedOnce,
    /// Mean and variance; rounded once.
    Layer,
}

/// A norm over rows of `width` elements.
///
/// Weight and bias may be several rows long: then row `i` of the input takes row `i` of them,
/// starting over at their end.
#[derive(Debug, Clone)]
pub(crate) struct RowNorm {
    pub(crate) kind: Kind,
    pub(crate) width: usize,
    pub(crate) weight: Arc<[f32]>,
    pub(crate) bias: Option<Arc<[f32]>>,
    pub(crate) eps: f32,
}

impl RowNorm {
    fn apply<T: Element>(&self, input: &[T]) -> Vec<T> {
        let width = self.width;
        let own_rows = self.weight.len() / width;
        let mut output = vec![T::zero(); input.len()];
        let rows = input
            .par_chunks_exact(width)
            .zip(output.par_chunks_exact_mut(width));
        rows.enumerate()
            .with_min_len(rows_at_once(width))
            .for_each(|(i, (input, output))| {
                let from = i % own_rows * width;
                let weight = &self.weight[from..from + width];
                let bias = self.bias.as_ref().map(|bias| &bias[from..from + width]);
                vectorized(
                    #[inline(always)]
                    || self.row(input, weight, bias, output),
                );
            });
        output
    }

    #[inline(always)]
    fn row<T: Element>(&self, input: &[T], weight: &[f32], bias: Option<&[f32]>, output: &mut [T]) {
        let width = self.width as f32;
        let mean = match self.kind {
            Kind::Layer => sum(input, T::widen) / width,
            Kind::Rms | Kind::RmsRoundedOnce => 0.0,
        };
        let deviation = |x: T| {
            let x = x.widen() - mean;
            x * x
        };
        let scale = 1.0 / (sum(input, deviation) / width + self.eps).sqrt();
        let elements = output.iter_mut().zip(input).zip(weight);
        match (self.kind, bias) {
            (Kind::Rms, _) => {
                for ((out, x), weight) in elements {
                    *out = T::round(T::round(x.widen() * scale).widen() * weight);
                }
            }
            (_, None) => {
                for ((out, x), weight) in elements {
                    *out = T::round((x.widen() - mean) * scale * weight);
                }
            }
            (_, Some(bias)) => {
                for (((out, x), weight), bias) in elements.zip(bias) {
                    *out = T::round((x.widen() - mean) * scale * weight + bias);
                }
            }
        }
    }
}

impl CustomOp1 for RowNorm {
    fn name(&self) -> &'static str {
        "row-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = by_type!(storage.dtype(), T => {
            T::to_cpu_storage_owned(self.apply::<T>(contiguous(storage, layout)?))
        });
        Ok((output, layout.shape().clone()))
    }
}

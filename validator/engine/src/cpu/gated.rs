//! The gated feed-forward activation: `activation(gate) * up`, from both side by side.

use candle_core::{
    CpuStorage, CustomOp1, Layout, Result, Shape, WithDType, backend::BackendStorage,
};
use model::config::Activation;
use rayon::prelude::*;

use super::{Element, contiguous, rows_at_once, vectorized};
use crate::{
    activation::{activated, gelu, gelu_tanh, silu},
    dtype::by_type,
};

/// From rows of gate and up side by side (`[.., 2 * n]`) to rows of their product (`[.., n]`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gated(pub(crate) Activation);

impl Gated {
    fn apply<T: Element>(self, input: &[T], width: usize) -> Vec<T> {
        let mut output = vec![T::zero(); input.len() / 2];
        input
            .par_chunks_exact(2 * width)
            .zip(output.par_chunks_exact_mut(width))
            .with_min_len(rows_at_once(width))
            .for_each(|(input, output)| {
                let (gate, up) = input.split_at(width);
                vectorized(
                    #[inline(always)]
                    || match self.0 {
                        Activation::Silu => product(gate, up, output, silu),
                        Activation::GeluTanh => product(gate, up, output, gelu_tanh),
                        Activation::Gelu => product(gate, up, output, gelu),
                        rarer => product(gate, up, output, |x| activated(rarer, x)),
                    },
                );
            });
        output
    }
}

#[inline(always)]
fn product<T: Element>(gate: &[T], up: &[T], output: &mut [T], activation: impl Fn(f32) -> f32) {
    for ((out, gate), up) in output.iter_mut().zip(gate).zip(up) {
        *out = T::round(T::round(activation(gate.widen())).widen() * up.widen());
    }
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let width = columns / 2;
        let output = by_type!(storage.dtype(), T => {
            T::to_cpu_storage_owned(self.apply::<T>(contiguous(storage, layout)?, width))
        });
        Ok((output, (rows, width).into()))
    }
}

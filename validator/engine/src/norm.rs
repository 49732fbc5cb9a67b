//! Norms of hidden states on any device.

use candle_core::{D, DType, Result, Tensor};
use model::config::Norm as NormSpec;

use crate::cpu::norm::{Kind, RowNorm};
#[cfg(feature = "cuda")]
use crate::cuda::kernels;

/// A norm with its weights.
#[derive(Debug)]
pub(crate) enum Norm {
    Cpu(RowNorm),
    #[cfg(feature = "cuda")]
    Cuda(kernels::RowNorm),
}

impl Norm {
    /// Makes a norm over the last dimension. A weight of several rows (`[heads, width]`) is for
    /// inputs `[tokens, heads, width]`.
    pub(crate) fn new(spec: &NormSpec, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() {
            return Ok(Self::Cuda(kernels::RowNorm::new(spec, weight, bias)?));
        }
        let (kind, eps) = match *spec {
            NormSpec::Rms { eps } => (Kind::Rms, eps),
            NormSpec::RmsPlusOne { eps } => (Kind::RmsRoundedOnce, eps),
            NormSpec::Layer { eps } => (Kind::Layer, eps),
        };
        let plain = |tensor: &Tensor| -> Result<Vec<f32>> {
            tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        };
        let width = weight.dim(D::Minus1)?;
        let mut weight = plain(weight)?;
        if matches!(spec, NormSpec::RmsPlusOne { .. }) {
            for weight in &mut weight {
                *weight += 1.0;
            }
        }
        Ok(Self::Cpu(RowNorm {
            kind,
            width,
            weight: weight.into(),
            bias: bias.map(plain).transpose()?.map(Into::into),
            eps: eps as f32,
        }))
    }

    /// Normalizes over the last dimension of a contiguous tensor.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Cpu(norm) => x.apply_op1_no_bwd(norm),
            #[cfg(feature = "cuda")]
            Self::Cuda(norm) => norm.of(x),
        }
    }

    /// Normalizes `x + term`; returns that sum too.
    pub(crate) fn forward_sum(&self, x: Tensor, term: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        #[cfg(feature = "cuda")]
        if let (Self::Cuda(norm), Some(term)) = (self, term) {
            return norm.of_sum(&x, term);
        }
        let sum = match term {
            Some(term) => (x + term)?,
            None => x,
        };
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }
}

//! Norms of hidden states on any device.

use candle_core::{DType, Result, Tensor};
use candle_nn::ops;
use model::config::Norm as NormSpec;

use crate::cpu::norm::{Kind, RowNorm};

/// A norm with its weights.
#[derive(Debug)]
pub(crate) enum Norm {
    /// On the CPU, whatever the kind.
    Cpu(RowNorm),
    Rms {
        weight: Tensor,
        eps: f32,
    },
    /// Computed in f32 and rounded once; the weight is f32 and has one added.
    RmsPlusOne {
        weight: Tensor,
        eps: f32,
    },
    Layer {
        weight: Tensor,
        bias: Tensor,
        eps: f32,
    },
}

impl Norm {
    /// Makes a norm over the last dimension. A weight of several rows (`[heads, width]`) is for
    /// inputs `[tokens, heads, width]`.
    pub(crate) fn new(spec: &NormSpec, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let width = weight.dim(candle_core::D::Minus1)?;
        let eps = match *spec {
            NormSpec::Rms { eps } | NormSpec::RmsPlusOne { eps } | NormSpec::Layer { eps } => eps,
        } as f32;
        let plus_one = matches!(spec, NormSpec::RmsPlusOne { .. });
        if weight.device().is_cpu() {
            let plain = |tensor: &Tensor| -> Result<Vec<f32>> {
                tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
            };
            let mut weight = plain(weight)?;
            if plus_one {
                for weight in &mut weight {
                    *weight += 1.0;
                }
            }
            return Ok(Self::Cpu(RowNorm {
                kind: match spec {
                    NormSpec::Rms { .. } => Kind::Rms,
                    NormSpec::RmsPlusOne { .. } => Kind::RmsRoundedOnce,
                    NormSpec::Layer { .. } => Kind::Layer,
                },
                width,
                weight: weight.into(),
                bias: bias.map(plain).transpose()?.map(Into::into),
                eps,
            }));
        }
        Ok(match spec {
            NormSpec::Rms { .. } => Self::Rms {
                weight: weight.clone(),
                eps,
            },
            NormSpec::RmsPlusOne { .. } => Self::RmsPlusOne {
                weight: (weight.to_dtype(DType::F32)? + 1.0)?,
                eps,
            },
            NormSpec::Layer { .. } => {
                let bias = bias.map_or_else(|| weight.zeros_like(), |bias| Ok(bias.clone()))?;
                Self::Layer {
                    weight: weight.clone(),
                    bias,
                    eps,
                }
            }
        })
    }

    /// Normalizes over the last dimension of a contiguous tensor.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Cpu(norm) => x.apply_op1_no_bwd(norm),
            Self::Rms { weight, eps } => ops::rms_norm(x, weight, *eps),
            Self::RmsPlusOne { weight, eps } => {
                ops::rms_norm(&x.to_dtype(DType::F32)?, weight, *eps)?.to_dtype(x.dtype())
            }
            Self::Layer { weight, bias, eps } if weight.rank() == 1 => {
                ops::layer_norm(x, weight, bias, *eps)
            }
            Self::Layer { weight, bias, eps } => {
                let width = weight.dim(candle_core::D::Minus1)?;
                let one = Tensor::ones(width, x.dtype(), x.device())?;
                let zero = one.zeros_like()?;
                let x = ops::layer_norm(x, &one, &zero, *eps)?;
                x.broadcast_mul(weight)?.broadcast_add(bias)
            }
        }
    }
}

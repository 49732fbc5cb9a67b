//! Linear layers on any device.

use candle_core::{Result, Tensor};

use crate::cpu::linear::{AddProduct, Product};
#[cfg(feature = "cuda")]
use crate::cuda::kernels::AddBias;

/// `x * weight^T + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub(crate) weight: Tensor,
    /// `[out]`.
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// From `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) if x.device().is_cpu() => {
                let rows = bias.broadcast_as((x.dim(0)?, bias.dim(0)?))?;
                // A copy, even of a single row: the bias itself stays as it is.
                self.add_product(rows.force_contiguous()?, x)
            }
            #[cfg(feature = "cuda")]
            Some(bias) if x.device().is_cuda() => {
                let product = x.matmul(&self.weight.t()?)?;
                product.inplace_op2(bias, &AddBias)?;
                Ok(product)
            }
            Some(bias) => product(x, &self.weight)?.broadcast_add(bias),
            None => product(x, &self.weight),
        }
    }

    /// Adds the output to a residual that nobody else holds (`[rows, out]`).
    pub(crate) fn add_to(&self, residual: Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            None if x.device().is_cpu() => self.add_product(residual, x),
            _ => residual + self.forward(x)?,
        }
    }

    /// Adds `x * weight^T` to `sum` in place.
    fn add_product(&self, sum: Tensor, x: &Tensor) -> Result<Tensor> {
        sum.inplace_op3(x, &self.weight, &AddProduct)?;
        Ok(sum)
    }
}

/// Returns `x * weight^T` (`[rows, out]`) of `x` (`[rows, in]`) and `weight` (`[out, in]`).
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.apply_op2_no_bwd(weight, &Product)
    } else {
        x.matmul(&weight.t()?)
    }
}

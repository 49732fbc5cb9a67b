//! Products with the weights of a linear layer, in f32.

use candle_core::{CpuStorage, CustomOp2, InplaceOp3, Layout, Result, Shape};

use super::{
    contiguous,
    matrix::{View, add_product, product},
};

/// The factors `x` (`[rows, in]`) and `weight` (`[out, in]`) of `x * weight^T`.
struct Factors<'a> {
    /// `(rows, in, out)`.
    size: (usize, usize, usize),
    x: View<'a>,
    weight: View<'a>,
}

impl<'a> Factors<'a> {
    fn new(
        (x, x_layout): (&'a CpuStorage, &Layout),
        (weight, weight_layout): (&'a CpuStorage, &Layout),
    ) -> Result<Self> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (columns, _) = weight_layout.shape().dims2()?;
        Ok(Self {
            size: (rows, inner, columns),
            x: View::rows(contiguous(x, x_layout)?, inner),
            weight: View::rows(contiguous(weight, weight_layout)?, inner).transposed(),
        })
    }
}

/// From `x` and `weight` to their product, `[rows, out]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Factors { size, x, weight } = Factors::new((x, x_layout), (weight, weight_layout))?;
        let output = product(size, x, weight);
        Ok((CpuStorage::F32(output), (size.0, size.2).into()))
    }
}

/// Adds the product of `x` and `weight` to a tensor in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddProduct;

impl InplaceOp3 for AddProduct {
    fn name(&self) -> &'static str {
        "add-product"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        sum_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<()> {
        let Factors { size, x, weight } = Factors::new((x, x_layout), (weight, weight_layout))?;
        add_product(size, x, weight, contiguous_mut(sum, sum_layout)?);
        Ok(())
    }
}

fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(elements), Some((start, end))) => Ok(&mut elements[start..end]),
        _ => candle_core::bail!("the tensor is not contiguous f32: {layout:?}"),
    }
}

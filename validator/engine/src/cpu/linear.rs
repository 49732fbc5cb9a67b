//! Products with the weights of a linear layer.

use candle_core::{CpuStorage, CustomOp2, InplaceOp3, Layout, Result, Shape};
use half::bf16;
use rayon::prelude::*;

use super::{
    Element, contiguous,
    matrix::{View, add_product, multiply, product},
    vectorized,
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

/// From `x` and `weight` to their product, `[rows, out]`, in f32 or bf16.
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
        let (rows, inner) = x_layout.shape().dims2()?;
        let (columns, _) = weight_layout.shape().dims2()?;
        let output = if matches!(x, CpuStorage::BF16(_)) {
            let x = contiguous::<bf16>(x, x_layout)?;
            let weight = contiguous(weight, weight_layout)?;
            CpuStorage::BF16(by_tiles((rows, inner, columns), x, weight))
        } else {
            let Factors { size, x, weight } = Factors::new((x, x_layout), (weight, weight_layout))?;
            CpuStorage::F32(product(size, x, weight))
        };
        Ok((output, (rows, columns).into()))
    }
}

/// Columns of a product that a thread computes at once, so that their weights stay in its cache.
const TILE: usize = 128;

/// Returns the product of numbers that no CPU multiplies as they are: weights are widened tile by tile,
/// sums are f32, and each is rounded once. (The tensor library widens all that lies in one storage, which
/// is all weights of a model, for each product.)
fn by_tiles<T: Element>(
    (rows, inner, columns): (usize, usize, usize),
    x: &[T],
    weight: &[T],
) -> Vec<T> {
    let mut output = vec![T::round(0.0); rows * columns];
    if output.is_empty() || inner == 0 {
        return output;
    }
    let x = widened(x);
    let tiles: Vec<Vec<T>> = weight
        .par_chunks(TILE * inner)
        .map(|tile| {
            let width = tile.len() / inner;
            let mut sums = vec![0.0; rows * width];
            let weights = widened(tile);
            let weights = View::rows(&weights, inner).transposed();
            let size = (rows, inner, width);
            multiply(size, View::rows(&x, inner), weights, &mut sums, width);
            vectorized(
                #[inline(always)]
                || sums.iter().map(|sum| T::round(*sum)).collect(),
            )
        })
        .collect();
    let rows = output.par_chunks_mut(columns).enumerate();
    rows.for_each(|(row, output)| {
        for (tile, output) in tiles.iter().zip(output.chunks_mut(TILE)) {
            let width = output.len();
            output.copy_from_slice(&tile[row * width..][..width]);
        }
    });
    output
}

fn widened<T: Element>(values: &[T]) -> Vec<f32> {
    vectorized(
        #[inline(always)]
        || values.iter().map(|value| value.widen()).collect(),
    )
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whole numbers, whose sums are exact in f32: what is left is one rounding.
        #[test]
        fn sums_of_bf16_are_rounded_once(
            rows in 1_usize..4, inner in 1_usize..70, columns in 1_usize..300, seed in 0_u32..1000,
        ) {
            let numbers = |length: usize, step: u32| -> Vec<f32> {
                let number = |i: usize| (i as u32).wrapping_mul(step).wrapping_add(seed) % 17;
                (0..length).map(|i| number(i) as f32 - 8.0).collect()
            };
            let (x, weight) = (numbers(rows * inner, 7919), numbers(columns * inner, 104_729));
            let tensor = |values: &[f32], shape: (usize, usize)| {
                let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
                tensor.to_dtype(candle_core::DType::BF16).unwrap()
            };
            let found = tensor(&x, (rows, inner))
                .apply_op2_no_bwd(&tensor(&weight, (columns, inner)), &Product)
                .unwrap();
            let mut expected = Vec::new();
            for row in x.chunks(inner) {
                let sums = weight.chunks(inner).map(|column| {
                    let sum: f32 = row.iter().zip(column).map(|(a, b)| a * b).sum();
                    bf16::from_f32(sum)
                });
                expected.push(sums.collect::<Vec<_>>());
            }
            prop_assert_eq!(found.to_vec2::<bf16>().unwrap(), expected);
        }

        #[test]
        fn bf16_is_widened_and_rounded_as_everywhere(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Element>::round(value), bf16::from_f32(value));
            prop_assert_eq!(ours.to_bits(), theirs.to_bits());
            let (wide, theirs) = (ours.widen(), ours.to_f32());
            prop_assert_eq!(wide.is_nan(), theirs.is_nan());
            prop_assert!(wide.is_nan() || wide.to_bits() == theirs.to_bits());
        }
    }
}

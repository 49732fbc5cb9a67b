//! Products with the weights of a linear layer.

use candle_core::{
    CpuStorage, CustomOp2, InplaceOp3, Layout, Result, Shape, WithDType, backend::BackendStorage,
    bail,
};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::native;
use super::{
    Element, contiguous,
    matrix::{View, add_product, multiply, product},
    rows_at_once, vectorized,
};
use crate::dtype::by_type;

/// The factors `x` (`[rows, in]`) and `weight` (`[out, in]`) of `x * weight^T`.
pub(super) struct Factors<'a, T> {
    /// `(rows, in, out)`.
    pub(super) size: (usize, usize, usize),
    pub(super) x: &'a [T],
    pub(super) weight: &'a [T],
}

impl<'a, T: Element> Factors<'a, T> {
    pub(super) fn new(
        (x, x_layout): (&'a CpuStorage, &Layout),
        (weight, weight_layout): (&'a CpuStorage, &Layout),
    ) -> Result<Self> {
        let (rows, inner) = x_layout.shape().dims2()?;
        let (columns, _) = weight_layout.shape().dims2()?;
        Ok(Self {
            size: (rows, inner, columns),
            x: contiguous(x, x_layout)?,
            weight: contiguous(weight, weight_layout)?,
        })
    }

    /// Returns the product in parts of [`TILE`] columns, the last of what is left. Sums are f32, and each is rounded
    /// once.
    pub(super) fn tiles(&self) -> Vec<Vec<T>> {
        #[cfg(target_arch = "x86_64")]
        if let (Some(x), Some(weight)) = (T::brain(self.x), T::brain(self.weight))
            && let Some(left) = native::Left::new(x, self.size.0, self.size.1)
        {
            return self.rounded_tiles(weight, |tile, _, sums| left.times(tile, sums));
        }
        // No other CPU multiplies such numbers as they are: weights are widened tile by tile. (The tensor library
        // widens all that lies in one storage, which is all weights of a model, for each product.)
        let x = widened(self.x);
        self.rounded_tiles(self.weight, |tile, weights, sums| {
            let (rows, inner, _) = self.size;
            let width = tile.len() / inner;
            weights.clear();
            vectorized(
                #[inline(always)]
                || weights.extend(tile.iter().map(|weight| weight.widen())),
            );
            let weights = View::rows(weights, inner).transposed();
            multiply(
                (rows, inner, width),
                View::rows(&x, inner),
                weights,
                sums,
                width,
            );
        })
    }

    /// Has the product with each tile of weights written to its sums, with the help of a buffer.
    fn rounded_tiles<W: Sync>(
        &self,
        weight: &[W],
        product: impl Fn(&[W], &mut Vec<f32>, &mut [f32]) + Sync,
    ) -> Vec<Vec<T>> {
        let (rows, inner, _) = self.size;
        let tiles = weight.par_chunks((TILE * inner).max(1));
        let rounded = |(buffer, sums): &mut (Vec<f32>, Vec<f32>), tile: &[W]| {
            sums.resize(rows * (tile.len() / inner), 0.0);
            product(tile, buffer, sums);
            vectorized(
                #[inline(always)]
                || sums.iter().map(|sum| T::round(*sum)).collect(),
            )
        };
        tiles.map_init(Default::default, rounded).collect()
    }
}

impl Factors<'_, f32> {
    /// Returns the product, `[rows, out]`.
    pub(super) fn product(&self) -> Vec<f32> {
        let (x, weight) = self.views();
        product(self.size, x, weight)
    }

    fn views(&self) -> (View<'_>, View<'_>) {
        let inner = self.size.1;
        (
            View::rows(self.x, inner),
            View::rows(self.weight, inner).transposed(),
        )
    }
}

/// Columns of a product that a thread computes at once, so that their weights stay in its cache.
const TILE: usize = 128;

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
        let shape = (
            x_layout.shape().dims2()?.0,
            weight_layout.shape().dims2()?.0,
        );
        let (x, weight) = ((x, x_layout), (weight, weight_layout));
        let output = if matches!(x.0, CpuStorage::F32(_)) {
            CpuStorage::F32(Factors::new(x, weight)?.product())
        } else {
            by_type!(x.0.dtype(), T => {
                let tiles = Factors::<T>::new(x, weight)?.tiles();
                T::to_cpu_storage_owned(side_by_side(shape, &tiles))
            })
        };
        Ok((output, shape.into()))
    }
}

/// Joins parts of a matrix that have [`TILE`] columns each, the last of what is left.
fn side_by_side<T: Element>((rows, columns): (usize, usize), tiles: &[Vec<T>]) -> Vec<T> {
    let mut output = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for (i, tile) in tiles.iter().enumerate() {
            let width = TILE.min(columns - i * TILE);
            output.extend_from_slice(&tile[row * width..][..width]);
        }
    }
    // Where nothing is summed up, there are no tiles.
    output.resize(rows * columns, T::zero());
    output
}

fn widened<T: Element>(values: &[T]) -> Vec<f32> {
    vectorized(
        #[inline(always)]
        || values.iter().map(|value| value.widen()).collect(),
    )
}

/// Adds the product of `x` and `weight`, rounded, to a tensor in place.
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
        let (x, weight) = ((x, x_layout), (weight, weight_layout));
        match sum {
            CpuStorage::F32(sum) => {
                let factors = Factors::new(x, weight)?;
                let (x, weight) = factors.views();
                add_product(factors.size, x, weight, contiguous_mut(sum, sum_layout)?);
            }
            CpuStorage::BF16(sum) => {
                add_tiles(contiguous_mut(sum, sum_layout)?, &Factors::new(x, weight)?);
            }
            CpuStorage::F16(sum) => {
                add_tiles(contiguous_mut(sum, sum_layout)?, &Factors::new(x, weight)?);
            }
            other => bail!("no products in {:?}", other.dtype()),
        }
        Ok(())
    }
}

fn add_tiles<T: Element>(sum: &mut [T], factors: &Factors<'_, T>) {
    let tiles = factors.tiles();
    let columns = factors.size.2;
    sum.par_chunks_exact_mut(columns.max(1))
        .enumerate()
        .with_min_len(rows_at_once(columns))
        .for_each(|(row, sum)| {
            for (tile, sum) in tiles.iter().zip(sum.chunks_mut(TILE)) {
                let terms = &tile[row * sum.len()..];
                vectorized(
                    #[inline(always)]
                    || {
                        for (sum, term) in sum.iter_mut().zip(terms) {
                            *sum = T::round(sum.widen() + term.widen());
                        }
                    },
                );
            }
        });
}

fn contiguous_mut<'a, T>(elements: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut elements[start..end]),
        None => bail!("the tensor is not contiguous: {layout:?}"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    /// Whole numbers, whose sums are exact in f32: what is left is one rounding, and one more where the product is added.
    fn are_rounded_once<T: Element + PartialEq + std::fmt::Debug>(
        (rows, inner, columns): (usize, usize, usize),
        seed: u32,
    ) {
        let numbers = |length: usize, step: u32| -> Vec<f32> {
            let number = |i: usize| (i as u32).wrapping_mul(step).wrapping_add(seed) % 17;
            (0..length).map(|i| number(i) as f32 - 8.0).collect()
        };
        let (x, weight) = (
            numbers(rows * inner, 7919),
            numbers(columns * inner, 104_729),
        );
        let tensor = |values: &[f32], shape: (usize, usize)| {
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
            tensor.to_dtype(T::DTYPE).unwrap()
        };
        let [wide_x, wide_weight] = [tensor(&x, (rows, inner)), tensor(&weight, (columns, inner))];
        let product = wide_x.apply_op2_no_bwd(&wide_weight, &Product).unwrap();
        let sum = tensor(&numbers(rows * columns, 31), (rows, columns));
        let expected_sum = (&sum + &product).unwrap();
        sum.inplace_op3(&wide_x, &wide_weight, &AddProduct).unwrap();
        let mut expected = Vec::new();
        for row in x.chunks(inner) {
            let sums = weight.chunks(inner).map(|column| {
                let sum: f32 = row.iter().zip(column).map(|(a, b)| a * b).sum();
                T::round(sum)
            });
            expected.push(sums.collect::<Vec<_>>());
        }
        assert_eq!(product.to_vec2::<T>().unwrap(), expected);
        assert_eq!(
            sum.to_vec2::<T>().unwrap(),
            expected_sum.to_vec2::<T>().unwrap()
        );
    }

    proptest! {
        #[test]
        fn sums_are_rounded_once(
            rows in 1_usize..4, inner in 1_usize..70, columns in 1_usize..300, seed in 0_u32..1000,
        ) {
            are_rounded_once::<bf16>((rows, inner, columns), seed);
            are_rounded_once::<f16>((rows, inner, columns), seed);
        }
    }

    #[test]
    fn sums_of_nothing_are_zero() {
        let empty = Tensor::zeros((2, 0), DType::BF16, &Device::Cpu).unwrap();
        let weight = Tensor::zeros((3, 0), DType::BF16, &Device::Cpu).unwrap();
        let product = empty.apply_op2_no_bwd(&weight, &Product).unwrap();
        assert_eq!(product.to_vec2::<bf16>().unwrap(), [[bf16::ZERO; 3]; 2]);
    }
}

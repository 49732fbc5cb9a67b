//! Products of bf16 by the instructions some CPUs have for them: sums are f32, and what is nearer to zero than 2^-126
//! is zero (Intel's Software Developer's Manual, `VDPBF16PS` and `TDPBF16PS`). In a cycle Zen 4 multiplies twice as many
//! numbers of bf16 as of f32, Sapphire Rapids 16 times as many.

#[cfg(test)]
mod emulation;
mod tiles;
mod vectors;

use std::sync::OnceLock;

use half::bf16;

/// What a CPU multiplies numbers of bf16 with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Sixteen sums of two products each: AVX-512, from Zen 4 and Cooper Lake on.
    Vectors,
    /// 16 x 16 sums of 32 products each: AMX, from Sapphire Rapids on.
    Tiles,
}

impl Unit {
    /// Returns the best one this machine has. The kernel is asked for tiles: see [`super::prepare`].
    pub(crate) fn of_machine() -> Option<Self> {
        static FOUND: OnceLock<Option<Unit>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let units = [Self::Tiles, Self::Vectors];
            units.into_iter().find(|unit| unit.can_be_had())
        })
    }

    fn can_be_had(self) -> bool {
        match self {
            Self::Vectors => vectors::can_be_had(),
            Self::Tiles => vectors::can_be_had() && tiles::can_be_had(),
        }
    }
}

/// A left factor, `x` (`[rows, inner]`), as a unit reads it.
#[derive(Debug)]
pub(super) struct Left<'a> {
    rows: usize,
    inner: usize,
    x: &'a [bf16],
    /// For tiles.
    tiled: Option<tiles::TiledRows>,
}

impl<'a> Left<'a> {
    /// Takes `x` (`[rows, inner]`), if this machine has a unit.
    pub(super) fn new(x: &'a [bf16], rows: usize, inner: usize) -> Option<Self> {
        Unit::of_machine().map(|unit| Self::by(unit, x, rows, inner))
    }

    /// Takes `x` for a unit of this machine.
    fn by(unit: Unit, x: &'a [bf16], rows: usize, inner: usize) -> Self {
        assert_eq!(x.len(), rows * inner, "x has so many rows");
        Self {
            rows,
            inner,
            x,
            tiled: match unit {
                Unit::Vectors => None,
                Unit::Tiles => tiles::TiledRows::new(x, inner),
            },
        }
    }

    /// Writes `x * weight^T` (`[rows, columns]`) for a `weight` of `[columns, inner]`.
    pub(super) fn times(&self, weight: &[bf16], product: &mut [f32]) {
        let columns = weight.len() / self.inner.max(1);
        assert_eq!(product.len(), self.rows * columns, "the product fits");
        let by_tiles = match &self.tiled {
            Some(tiled) => tiled.times(weight, product),
            None => 0,
        };
        vectors::multiply(self.x, self.inner, weight, by_tiles..columns, product);
    }
}

#[cfg(test)]
mod tests {
    use e2e::skip;
    use proptest::prelude::*;

    use super::*;

    /// Returns what can be tried here: tiles by emulation, if need be.
    fn units() -> Vec<Unit> {
        if !Unit::Vectors.can_be_had() {
            skip("products of bf16: the CPU has no instructions for them");
            return Vec::new();
        }
        if !Unit::Tiles.can_be_had() {
            emulation::start();
        }
        vec![Unit::Vectors, Unit::Tiles]
    }

    fn numbers(count: usize, seed: u32) -> Vec<bf16> {
        let mut state = seed;
        let number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        std::iter::repeat_with(number).take(count).collect()
    }

    fn product(unit: Unit, x: &[bf16], weight: &[bf16], inner: usize) -> Vec<f32> {
        let rows = x.len() / inner;
        let mut product = vec![f32::NAN; rows * (weight.len() / inner)];
        Left::by(unit, x, rows, inner).times(weight, &mut product);
        product
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn products_are_those_of_f64(
            rows in 1_usize..70,
            inner in prop_oneof![1_usize..70, Just(32), Just(96), Just(640)],
            columns in 1_usize..100,
            seed in any::<u32>(),
        ) {
            let (x, weight) = (numbers(rows * inner, seed), numbers(columns * inner, !seed));
            let dot = |x: &[bf16], weight: &[bf16]| -> f64 {
                x.iter().zip(weight).map(|(a, b)| a.to_f64() * b.to_f64()).sum()
            };
            let weights = || weight.chunks(inner);
            let expected: Vec<f64> =
                x.chunks(inner).flat_map(|x| weights().map(|weight| dot(x, weight))).collect();
            for unit in units() {
                for (found, expected) in product(unit, &x, &weight, inner).iter().zip(&expected) {
                    let apart = (f64::from(*found) - expected).abs();
                    prop_assert!(apart < 1e-4, "{unit:?}: {found}, expected {expected}");
                }
            }
        }
    }

    /// What is not finite reaches its own row or column only, from whichever number it comes.
    #[test]
    fn what_is_not_finite_stays_in_its_row_and_column() {
        let (rows, inner, columns) = (37, 96, 70);
        for unit in units() {
            for at in [0, 31, 32, 95] {
                let (mut x, mut weight) = (numbers(rows * inner, 1), numbers(columns * inner, 2));
                x[5 * inner + at] = bf16::NAN;
                weight[3 * inner + at] = bf16::INFINITY;
                weight[66 * inner + at] = bf16::NEG_INFINITY;
                let product = product(unit, &x, &weight, inner);
                for (i, sum) in product.iter().enumerate() {
                    let touched = i / columns == 5 || [3, 66].contains(&(i % columns));
                    assert_eq!(sum.is_finite(), !touched, "{unit:?}, {at}, {i}");
                }
            }
        }
    }
}

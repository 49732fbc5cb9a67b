//! Loops for the CPU: what the tensor library does op by op, done in one pass over the data.

#![expect(
    clippy::inline_always,
    reason = "loops are compiled for the vectors of their caller"
)]

pub(crate) mod attention;
pub(crate) mod cross_entropy;
pub(crate) mod exp;
pub(crate) mod gated;
pub(crate) mod linear;
mod matrix;
#[cfg(target_arch = "x86_64")]
pub(crate) mod native;
pub(crate) mod norm;

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};
use half::{bf16, f16};

/// Finds out what this CPU has. For some of it the kernel is asked, which is forbidden behind the walls.
pub(crate) fn prepare() {
    #[cfg(target_arch = "x86_64")]
    native::Unit::of_machine();
}

/// Runs a loop compiled for the widest vectors this machine has.
///
/// The loop must be an `#[inline(always)]` closure of `#[inline(always)]` functions: only what is
/// inlined here is compiled for those vectors.
#[inline(always)]
fn vectorized<R>(run: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<R>(run: impl FnOnce() -> R) -> R {
            run()
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            #[expect(unsafe_code, reason = "calling a function compiled for other vectors")]
            // SAFETY: the machine was just found to have the features the function is compiled for.
            return unsafe { with_avx2(run) };
        }
    }
    run()
}

/// Number of partial results a reduction keeps, so that its steps need not wait for each other.
const LANES: usize = 32;

/// Returns the sum of `value` over a row.
///
/// The partial sums are added in the order of the reference, eight at a time: where large weights
/// make every rounding count, the same order brings the losses closest.
#[inline(always)]
fn sum<T: Copy>(row: &[T], value: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (groups, rest) = row.as_chunks::<LANES>();
    for group in groups {
        for (lane, &element) in lanes.iter_mut().zip(group) {
            *lane += value(element);
        }
    }
    for (lane, &element) in lanes.iter_mut().zip(rest) {
        *lane += value(element);
    }
    sum_of_lanes(lanes)
}

/// Replaces each element of a row by its `value`; returns their sum, as [`sum`] does.
#[inline(always)]
fn map_and_sum(row: &mut [f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (groups, rest) = row.as_chunks_mut::<LANES>();
    for group in groups {
        for (lane, element) in lanes.iter_mut().zip(group) {
            *element = value(*element);
            *lane += *element;
        }
    }
    for (lane, element) in lanes.iter_mut().zip(rest) {
        *element = value(*element);
        *lane += *element;
    }
    sum_of_lanes(lanes)
}

#[inline(always)]
fn sum_of_lanes(mut lanes: [f32; LANES]) -> f32 {
    let (first, others) = lanes.split_at_mut(8);
    for other in others.as_chunks::<8>().0 {
        for (lane, &other) in first.iter_mut().zip(other) {
            *lane += other;
        }
    }
    first.iter().sum()
}

/// Returns the largest element of a row; NaNs are passed over.
#[inline(always)]
fn max<T: Copy>(row: &[T], value: impl Fn(T) -> f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (groups, rest) = row.as_chunks::<LANES>();
    for group in groups {
        for (lane, &element) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, value(element));
        }
    }
    for (lane, &element) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value(element));
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// A number type models are computed in.
pub(crate) trait Element: WithDType {
    /// Returns the value as f32, exactly.
    fn widen(self) -> f32;
    /// Returns the nearest value of this type.
    fn round(value: f32) -> Self;
    /// Returns the values as they are, if they are f32.
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }
    /// Returns the values as they are, if they are bf16.
    fn brain(_: &[Self]) -> Option<&[bf16]> {
        None
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    fn plain(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
}

impl Element for bf16 {
    fn brain(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        // The upper half of an f32; `to_f32` looks at each for NaN, which keeps loops from vectors.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        // To the nearest, ties to even, without a branch.
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
        let quiet = (bits >> 16) as u16 | 0x0040;
        Self::from_bits(if value.is_nan() { quiet } else { rounded })
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // The same exponent means 2^112 times as much here, for subnormal numbers too.
        const SHIFT: f32 = f32::from_bits((127 + 112) << 23);
        const SPECIAL: u32 = 0x7C00 << 13;
        let bits = u32::from(self.to_bits());
        let rest = (bits & 0x7FFF) << 13;
        let value = (f32::from_bits(rest) * SHIFT).to_bits();
        let exponent = if rest < SPECIAL { 0 } else { 0x7F80_0000 };
        f32::from_bits(value | exponent | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        // To the nearest, ties to even, without a branch.
        let sign = value.to_bits() & 0x8000_0000;
        let bits = value.to_bits() ^ sign;
        let normal = bits.wrapping_add(0xC800_0FFF + ((bits >> 13) & 1)) >> 13;
        // Added to a half, the last bit of a subnormal number is the last bit of the sum.
        let subnormal = (f32::from_bits(bits) + 0.5)
            .to_bits()
            .wrapping_sub(0x3F00_0000);
        let special = if value.is_nan() { 0x7E00 } else { 0x7C00 };
        let finite = if bits < 0x3880_0000 {
            subnormal
        } else {
            normal
        };
        let rounded = if bits < 0x4780_0000 { finite } else { special };
        Self::from_bits((rounded | sign >> 16) as u16)
    }
}

/// Returns the elements of a contiguous tensor.
fn contiguous<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("the tensor is not contiguous: {layout:?}"),
    }
}

/// Rows handed to a thread at once: enough for the loop to outweigh the hand-over.
fn rows_at_once(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_same<T: Element + std::fmt::Debug>(value: f32, [ours, theirs]: [T; 2]) {
        assert!(
            value.is_nan() || ours == theirs,
            "{value:e}: {ours:?}, {theirs:?}"
        );
        assert_eq!(ours.widen().is_nan(), value.is_nan());
    }

    proptest! {
        #[test]
        fn numbers_are_rounded_as_everywhere(bits in any::<u32>(), exponent in 100_u32..145) {
            // Half of them where f16 has numbers.
            for bits in [bits, bits & 0x807F_FFFF | exponent << 23] {
                let value = f32::from_bits(bits);
                is_same(value, [Element::round(value), bf16::from_f32(value)]);
                is_same(value, [Element::round(value), f16::from_f32(value)]);
            }
        }
    }

    #[test]
    fn numbers_are_widened_as_everywhere() {
        let is_same = |ours: f32, theirs: f32| {
            ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan()
        };
        for bits in 0..=u16::MAX {
            let (brain, half) = (bf16::from_bits(bits), f16::from_bits(bits));
            assert!(is_same(brain.widen(), brain.to_f32()), "{brain:?}");
            assert!(is_same(half.widen(), half.to_f32()), "{half:?}");
        }
    }
}

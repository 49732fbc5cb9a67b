//! The exponential function, written so that a loop over it becomes vector code.

/// Returns `e^x` to within two units in the last place; NaN for NaN, infinity from 88.8 on.
///
/// Below -87.3, where the result would be subnormal, it returns the smallest normal number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding and subtracting it rounds to a whole number, left in the low bits in between.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first short enough for its multiples to be exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Comparisons in this order leave NaN alone.
    let x = if x > 88.8 { 88.8 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let r = (-whole).mul_add(LN_2[0], x);
    let r = (-whole).mul_add(LN_2[1], r);
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        0.5,
    ] {
        p = p.mul_add(r, coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    // 2^whole, by its exponent bits; 128 gives infinity.
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_are_as_they_should_be() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY).is_infinite());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert!((exp(0.0) - 1.0).abs() < f32::EPSILON);
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(x in -87.0_f32..88.0) {
            let expected = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) / expected - 1.0).abs() < 2.5e-7);
        }
    }
}

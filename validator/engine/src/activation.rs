//! Activations: of one number, for the CPU's loops, and of a tensor on any device.

#![expect(
    clippy::inline_always,
    reason = "loops are compiled for the vectors of their caller"
)]

use candle_core::{Result, Tensor};
use candle_nn::ops::{leaky_relu, sigmoid};
use model::config::Activation;

use crate::cpu::exp::exp;

/// Slope of [`Activation::ReluLeaky`] below zero.
const LEAK: f64 = 0.01;

/// Factor of [`Activation::GeluQuick`].
const QUICK: f64 = 1.702;

/// Mean and standard deviation of the normal variable behind [`Activation::Laplace`].
const LAPLACE: (f64, f64) = (707_107e-6, 282_095e-6);

/// Returns the activation of `x`; a NaN stays one.
pub(crate) fn activated(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => silu(x),
        Activation::Gelu => gelu(x),
        Activation::GeluClipped => gelu(x).clamp(-10.0, 10.0),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::GeluQuick => x * logistic(QUICK as f32 * x),
        Activation::Relu => relu(x),
        Activation::ReluSquared => relu(x) * relu(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::ReluLeaky => (if x < 0.0 { LEAK as f32 } else { 1.0 }) * x,
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Laplace => normal((f64::from(x) - LAPLACE.0) / LAPLACE.1) as f32,
        Activation::Sigmoid => logistic(x),
        Activation::Tanh => x.tanh(),
        Activation::Linear => x,
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::SqrtSoftplus => softplus(x).sqrt(),
    }
}

/// The same, element by element.
pub(crate) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluClipped => x.gelu_erf()?.clamp(-10.0, 10.0),
        Activation::GeluTanh => x.gelu(),
        Activation::GeluQuick => x * sigmoid(&(x * QUICK)?)?,
        Activation::Relu => x.relu(),
        Activation::ReluSquared => x.relu()?.sqr(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::ReluLeaky => leaky_relu(x, LEAK),
        // exp overflows far beyond where softplus is x itself.
        Activation::Mish => {
            x * (x.clamp(f64::NEG_INFINITY, 20.0)?.exp()? + 1.0)?
                .log()?
                .tanh()?
        }
        Activation::Laplace => {
            let (mean, deviation) = LAPLACE;
            let scale = deviation * std::f64::consts::SQRT_2;
            x.affine(1.0 / scale, -mean / scale)?
                .erf()?
                .affine(0.5, 0.5)
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Linear => Ok(x.clone()),
        Activation::HardSwish => x * ((x + 3.0)?.clamp(0.0, 6.0)? / 6.0)?,
        Activation::SqrtSoftplus => {
            // The logarithm of 1 + exp(x) is that of 1 + y for y = exp(-|x|), which can't overflow, and
            // x where that is positive. Of 1 + y it is 2 artanh(y / (2 + y)), as a series exact for
            // small y too.
            let y = x.abs()?.neg()?.exp()?;
            let t = (&y / (&y + 2.0)?)?;
            let square = t.sqr()?;
            let series = [11.0, 9.0, 7.0, 5.0, 3.0, 1.0]
                .into_iter()
                .try_fold(square.affine(0.0, 1.0 / 13.0)?, |sum, n| {
                    (sum * &square)? + 1.0 / n
                })?;
            (x.relu()? + (t * series)? * 2.0)?.sqrt()
        }
    }
}

/// As torch has it: beyond 20 it is `x` itself.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[inline(always)]
fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const SCALE: f32 = 0.797_884_6;
    // x * (1 + tanh(y)) / 2 is x times the logistic function of 2y.
    let y = SCALE * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * y))
}

pub(crate) fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (x * normal(x)) as f32
}

/// Distribution function of the standard normal variable.
fn normal(x: f64) -> f64 {
    0.5 * (1.0 + candle_core::cpu::erf::erf_f64(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Values of torch 2.3.1 with transformers 4.40 at -1.5, 2 and 20; the last two of 5.24.
    const REFERENCE: [(Activation, [f32; 3]); 16] = [
        (Activation::Silu, [-0.273_638, 1.761_594, 20.0]),
        (Activation::Gelu, [-0.100_211, 1.954_5, 20.0]),
        (Activation::GeluClipped, [-0.100_211, 1.954_5, 10.0]),
        (Activation::GeluTanh, [-0.100_428, 1.954_598, 20.0]),
        (Activation::GeluQuick, [-0.108_338, 1.935_659, 20.0]),
        (Activation::Relu, [0.0, 2.0, 20.0]),
        (Activation::ReluSquared, [0.0, 4.0, 400.0]),
        (Activation::Relu6, [0.0, 2.0, 6.0]),
        (Activation::ReluLeaky, [-0.015, 2.0, 20.0]),
        (Activation::Mish, [-0.298_1, 1.943_959, 20.0]),
        (Activation::Laplace, [0.0, 0.999_998, 1.0]),
        (Activation::Sigmoid, [0.182_426, 0.880_797, 1.0]),
        (Activation::Tanh, [-0.905_148, 0.964_028, 1.0]),
        (Activation::Linear, [-1.5, 2.0, 20.0]),
        (Activation::HardSwish, [-0.375, 1.666_667, 20.0]),
        (Activation::SqrtSoftplus, [0.448_791, 1.458_399, 4.472_136]),
    ];

    #[test]
    fn values_are_the_references() {
        for (activation, expected) in REFERENCE {
            let found = [-1.5, 2.0, 20.0].map(|x| activated(activation, x));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-6, "{activation:?}: {found}");
            }
        }
    }

    #[test]
    fn numbers_and_tensors_agree() {
        let numbers: Vec<f32> = (-400..=400).map(|n| n as f32 / 16.0).collect();
        let tensor = Tensor::new(numbers.as_slice(), &Device::Cpu).unwrap();
        for (activation, _) in REFERENCE {
            let whole = activate(activation, &tensor).unwrap();
            for (&x, whole) in numbers.iter().zip(whole.to_vec1::<f32>().unwrap()) {
                let one = activated(activation, x);
                let apart = (one - whole).abs() / one.abs().max(1.0);
                assert!(apart <= 2e-6, "{activation:?} of {x}: {one}, {whole}");
            }
        }
    }
}

//! Our CUDA kernels against the same in f64, on shapes with odd edges. On the simulated GPU, what is
//! not written is not a number, and what is read or written out of bounds ends the test.
#![cfg(feature = "cuda")]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict"
)]

#[cfg(feature = "cudasim")]
mod broken;

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use engine::{
    cuda::kernels::{AddBias, Attend, CrossEntropy, Gate, Gather, Rotate, RowNorm, attention_work},
    device::DeviceSpec,
    heads::Heads,
};
use model::config::{Activation, Norm};

fn device() -> Device {
    DeviceSpec::Cuda(vec![0]).open().unwrap().devices.remove(0)
}

/// Numbers without a pattern, in the type's own precision.
fn noise(count: usize, seed: u32, dtype: DType) -> Tensor {
    let mut state = seed;
    let values: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(count)
    .collect();
    Tensor::new(values, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor
        .to_device(&Device::Cpu)
        .unwrap()
        .flatten_all()
        .unwrap();
    flat.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (found - expected).abs();
        assert!(
            apart <= tolerance,
            "{what}, element {i}: {found}, expected {expected}"
        );
    }
}

/// Attention of one sequence after the other, in f64.
fn attended(qkv: &[f64], spans: &[Range<usize>], heads: Heads, window: Option<usize>) -> Vec<f64> {
    let Heads { queries, keys, dim } = heads;
    let stride = (queries + 2 * keys) * dim;
    let tokens = qkv.len() / stride;
    let part = |token: usize, head: usize| &qkv[token * stride + head * dim..][..dim];
    let mut out = vec![f64::NAN; tokens * queries * dim];
    for span in spans {
        for token in span.clone() {
            for head in 0..queries {
                let kv = queries + head / (queries / keys);
                let first = window.map_or(span.start, |w| span.start.max(token.saturating_sub(w)));
                let dot = |other| -> f64 {
                    let pairs = part(token, head).iter().zip(part(other, kv));
                    pairs.map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt()
                };
                let scores: Vec<f64> = (first..=token).map(dot).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..dim {
                    let values = (first..=token).map(|other| part(other, kv + keys)[d]);
                    let weighted = weights
                        .iter()
                        .zip(values)
                        .map(|(weight, value)| weight * value);
                    out[(token * queries + head) * dim + d] = weighted.sum::<f64>() / sum;
                }
            }
        }
    }
    out
}

#[test]
fn rows_are_taken_by_their_numbers() {
    let gpu = device();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (all, width) in [(5, 64), (300, 7), (2, 4100)] {
            let from = noise(all * width, 3, dtype).reshape((all, width)).unwrap();
            let rows: Vec<u32> = (0..9)
                .map(|i| i * 7 % all as u32)
                .chain([all as u32 - 1])
                .collect();
            let rows = Tensor::new(rows, &Device::Cpu).unwrap();
            let expected = from.index_select(&rows, 0).unwrap();
            let (from, rows) = (from.to_device(&gpu).unwrap(), rows.to_device(&gpu).unwrap());
            // A view into the middle, as of a list that holds more.
            let rows = Tensor::cat(&[&rows, &rows], 0)
                .unwrap()
                .narrow(0, 10, 10)
                .unwrap();
            let found = from.apply_op2_no_bwd(&rows, &Gather).unwrap();
            assert_eq!(
                numbers(&found),
                numbers(&expected),
                "{dtype:?}, {width} columns"
            );
        }
    }
}

#[test]
fn attention_is_that_of_f64() {
    let gpu = device();
    let heads = |queries, keys, dim| Heads { queries, keys, dim };
    for (heads, lengths, window, dtype) in [
        (heads(4, 2, 64), &[70, 1, 130][..], None, DType::BF16),
        (heads(2, 2, 80), &[65, 64][..], None, DType::BF16),
        (heads(2, 1, 96), &[33][..], None, DType::F16),
        (heads(3, 1, 128), &[100, 17][..], None, DType::BF16),
        (heads(2, 1, 128), &[300, 128][..], None, DType::BF16),
        (heads(1, 1, 128), &[270][..], Some(70), DType::BF16),
        (heads(2, 1, 256), &[80, 3][..], None, DType::BF16),
        (heads(2, 2, 16), &[150][..], Some(0), DType::BF16),
        (heads(2, 1, 128), &[200, 9][..], Some(63), DType::F16),
        (heads(1, 1, 8), &[140][..], Some(5), DType::BF16),
        (heads(4, 2, 64), &[70, 1, 130][..], None, DType::F32),
        (heads(2, 1, 256), &[80, 3][..], Some(40), DType::F32),
        (heads(3, 1, 10), &[31, 33][..], Some(0), DType::F32),
    ] {
        let mut end = 0;
        let mut spans = Vec::new();
        for length in lengths {
            spans.push(end..end + length);
            end += length;
        }
        let columns = (heads.queries + 2 * heads.keys) * heads.dim;
        let qkv = noise(end * columns, 7, dtype);
        let qkv = (qkv * 3.0).unwrap().reshape((end, columns)).unwrap();
        let work = Tensor::new(attention_work(&spans), &gpu).unwrap();
        let on_gpu = qkv.to_device(&gpu).unwrap();
        // By the kernels for short and for long sequences.
        let [found, by_wide] = [1, 1 << 20].map(|longest| {
            let attend = Attend {
                heads,
                window,
                longest,
            };
            numbers(&on_gpu.apply_op2_no_bwd(&work, &attend).unwrap())
        });
        assert_eq!(found, by_wide, "{heads:?} {window:?}");
        let expected = attended(&numbers(&qkv), &spans, heads, window);
        // In 16 bits, weights and the result are rounded: in bf16, to eight bits of mantissa.
        let tolerance = if dtype == DType::F32 { 2e-5 } else { 0.03 };
        assert_near(
            &found,
            &expected,
            tolerance,
            &format!("{heads:?} {window:?}"),
        );
    }
}

/// A sequence's bits are the same wherever it lies in a pack, and whatever lies beside it.
#[test]
fn attention_does_not_see_its_neighbors() {
    let gpu = device();
    let heads = Heads {
        queries: 2,
        keys: 1,
        dim: 24,
    };
    let columns = 4 * heads.dim;
    for dtype in [DType::BF16, DType::F32] {
        let one = noise(75 * columns, 11, dtype)
            .reshape((75, columns))
            .unwrap();
        let nan = (Tensor::zeros((9, columns), dtype, &Device::Cpu).unwrap() + f64::NAN).unwrap();
        let bits = |before: usize, parts: &[&Tensor]| {
            let mut end = 0;
            let spans: Vec<_> = parts
                .iter()
                .map(|part| {
                    end += part.dim(0).unwrap();
                    end - part.dim(0).unwrap()..end
                })
                .collect();
            let work = Tensor::new(attention_work(&spans), &gpu).unwrap();
            let qkv = Tensor::cat(parts, 0).unwrap().to_device(&gpu).unwrap();
            let attend = Attend {
                heads,
                window: None,
                longest: 75,
            };
            let out = qkv.apply_op2_no_bwd(&work, &attend).unwrap();
            numbers(&out.narrow(0, before, 75).unwrap())
        };
        let alone = bits(0, &[&one]);
        assert!(alone.iter().all(|x| x.is_finite()));
        assert_eq!(alone, bits(9, &[&nan, &one, &nan]), "{dtype:?}");
        assert_eq!(alone, bits(0, &[&one, &nan]), "{dtype:?}");
    }
}

#[test]
fn norms_are_those_of_f64() {
    let gpu = device();
    let layer = Norm::Layer { eps: 1e-5 };
    let (rms, plus_one) = (Norm::Rms { eps: 1e-6 }, Norm::RmsPlusOne { eps: 1e-6 });
    for (norm, width, own, dtype, tolerance) in [
        (rms, 48, 1, DType::F32, 2e-6),
        (rms, 1500, 1, DType::BF16, 0.04),
        (plus_one, 7, 1, DType::BF16, 0.04),
        (plus_one, 64, 1, DType::F16, 6e-3),
        (layer, 33, 1, DType::F32, 2e-6),
        (layer, 2056, 1, DType::BF16, 0.04),
        (layer, 24, 3, DType::F32, 2e-6),
    ] {
        let rows = 6;
        let matrix = |seed| {
            noise(rows * width, seed, dtype)
                .reshape((rows, width))
                .unwrap()
        };
        let (x, term) = (matrix(21), matrix(22));
        let of_weights = |seed| {
            noise(own * width, seed, dtype)
                .reshape((own, width))
                .unwrap()
        };
        let (weight, bias) = (of_weights(23), of_weights(24));
        let biased = matches!(norm, Norm::Layer { .. });
        let on_gpu = |tensor: &Tensor| tensor.to_device(&gpu).unwrap();
        let bias_there = biased.then(|| on_gpu(&bias));
        let kernel = RowNorm::new(&norm, &on_gpu(&weight), bias_there.as_ref()).unwrap();

        let (weight, bias) = (numbers(&weight), numbers(&bias));
        let expected = |x: &[f64]| -> Vec<f64> {
            let rows = x.chunks(width).enumerate().flat_map(|(row, x)| {
                let mean = x.iter().sum::<f64>() / width as f64;
                let mean = if biased { mean } else { 0.0 };
                let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                let (Norm::Rms { eps } | Norm::RmsPlusOne { eps } | Norm::Layer { eps }) = norm;
                let scale = 1.0 / (squares / width as f64 + eps).sqrt();
                let one = if matches!(norm, Norm::RmsPlusOne { .. }) {
                    1.0
                } else {
                    0.0
                };
                let own = row % own * width;
                let (weight, bias) = (&weight[own..], &bias[own..]);
                let columns = x.iter().enumerate().map(move |(i, x)| {
                    let bias = if biased { bias[i] } else { 0.0 };
                    (x - mean) * scale * (weight[i] + one) + bias
                });
                columns.collect::<Vec<_>>()
            });
            rows.collect()
        };
        let what = format!("{norm:?} {width} {dtype:?}");
        let found = kernel.of(&on_gpu(&x)).unwrap();
        assert_near(&numbers(&found), &expected(&numbers(&x)), tolerance, &what);
        let (sum, found) = kernel.of_sum(&on_gpu(&x), &on_gpu(&term)).unwrap();
        // The sum is rounded as any sum of the tensor library, and the norm is that of the rounded sum.
        assert_eq!(numbers(&sum), numbers(&(x + term).unwrap()), "{what}");
        assert_near(
            &numbers(&found),
            &expected(&numbers(&sum)),
            tolerance,
            &what,
        );
    }
}

#[test]
fn biases_are_added_as_the_tensor_library_does() {
    let gpu = device();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let x = noise(5 * 300, 31, dtype).reshape((5, 300)).unwrap();
        let bias = noise(300, 32, dtype);
        let expected = numbers(&x.broadcast_add(&bias).unwrap());
        let [found, bias] = [&x, &bias].map(|tensor| tensor.to_device(&gpu).unwrap());
        found.inplace_op2(&bias, &AddBias).unwrap();
        assert_eq!(numbers(&found), expected, "{dtype:?}");
    }
}

#[test]
fn rotation_is_that_of_f64() {
    let gpu = device();
    let heads = Heads {
        queries: 3,
        keys: 2,
        dim: 24,
    };
    let (tokens, half) = (37, 4);
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 0.02), (DType::F16, 2e-3)] {
        let columns = 7 * heads.dim;
        let qkv = noise(tokens * columns, 1, dtype)
            .reshape((tokens, columns))
            .unwrap();
        let cos = noise(tokens * half, 2, dtype)
            .reshape((tokens, half))
            .unwrap();
        let sin = noise(tokens * half, 3, dtype)
            .reshape((tokens, half))
            .unwrap();
        let (mut expected, c, s) = (numbers(&qkv), numbers(&cos), numbers(&sin));
        for token in 0..tokens {
            for head in 0..heads.queries + heads.keys {
                for i in 0..half {
                    let (first, table) = (token * columns + head * heads.dim + i, token * half + i);
                    let (a, b) = (expected[first], expected[first + half]);
                    expected[first] = a * c[table] - b * s[table];
                    expected[first + half] = a * s[table] + b * c[table];
                }
            }
        }
        let [rotated, cos, sin] = [&qkv, &cos, &sin].map(|t| t.to_device(&gpu).unwrap());
        rotated.inplace_op3(&cos, &sin, &Rotate(heads)).unwrap();
        assert_near(
            &numbers(&rotated),
            &expected,
            tolerance,
            &format!("{dtype:?}"),
        );
    }
}

#[test]
fn gates_are_those_of_f64() {
    let gpu = device();
    let (rows, width) = (5, 333);
    let gate_up = (noise(rows * 2 * width, 5, DType::F32) * 8.0).unwrap();
    let gate_up = gate_up.reshape((rows, 2 * width)).unwrap();
    let x = numbers(&gate_up);
    let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x * x * x)).tanh());
    let erf = |x: f64| candle_core::cpu::erf::erf_f64(x * std::f64::consts::FRAC_1_SQRT_2);
    let activations: [(Activation, &dyn Fn(f64) -> f64); 3] = [
        (Activation::Silu, &|x| x / (1.0 + (-x).exp())),
        (Activation::GeluTanh, &tanh),
        (Activation::Gelu, &|x| 0.5 * x * (1.0 + erf(x))),
    ];
    for (activation, expected) in activations {
        let expected: Vec<f64> = (0..rows * width)
            .map(|i| i / width * 2 * width + i % width)
            .map(|gate| expected(x[gate]) * x[gate + width])
            .collect();
        let gate = Gate::of(activation).unwrap();
        let found = gate_up
            .to_device(&gpu)
            .unwrap()
            .apply_op1_no_bwd(&gate)
            .unwrap();
        assert_near(
            &numbers(&found),
            &expected,
            1e-4,
            &format!("{activation:?}"),
        );
    }
}

#[test]
fn cross_entropy_is_that_of_f64() {
    let gpu = device();
    for (rows, width, dtype) in [
        (3, 1000, DType::BF16),
        (2, 7, DType::F32),
        (4, 257, DType::F16),
    ] {
        let logits = (noise(rows * width, 9, dtype) * 30.0).unwrap();
        let logits = logits.reshape((rows, width)).unwrap();
        let targets: Vec<u32> = (0..rows).map(|row| (row * 5 % width) as u32).collect();
        let x = numbers(&logits);
        let expected: Vec<f64> = targets
            .iter()
            .zip(x.chunks(width))
            .map(|(&target, row)| {
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
                most + sum.ln() - row[target as usize]
            })
            .collect();
        let targets = Tensor::new(targets, &gpu).unwrap();
        let logits = logits.to_device(&gpu).unwrap();
        let found = logits.apply_op2_no_bwd(&targets, &CrossEntropy).unwrap();
        assert_near(&numbers(&found), &expected, 1e-4, &format!("{dtype:?}"));
    }
    let odd = [f32::NAN, 1.0, f32::INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
    let odd = Tensor::new(&odd, &gpu).unwrap().reshape((3, 2)).unwrap();
    let targets = Tensor::new(&[1_u32, 1, 1], &gpu).unwrap();
    let found = numbers(&odd.apply_op2_no_bwd(&targets, &CrossEntropy).unwrap());
    assert!(
        found[0].is_nan() && found[1].is_nan() && found[2].abs() < 1e-6,
        "{found:?}"
    );
}

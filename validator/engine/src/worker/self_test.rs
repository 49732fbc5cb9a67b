//! A tiny built-in model with known losses: does the device compute as it should, with our code and
//! with the independent [`reference`]?

use std::time::Instant;

use candle_core::{Device, Tensor};
use model::{
    Architecture, Attention, Compatibility, Dtype, Fault, MachineFaultKind, PackingPlan,
    TokenizedSample, config::DecoderSpec, protocol::SelfTest,
};

use crate::{
    decoder::{Build, Parameter, tensor_dtype},
    fault, loss,
    reference::{self, Tensors},
};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false
}"#;

/// Losses of the samples, computed in f32 on a CPU.
const KNOWN: [f64; 3] = [4.917_328, 4.630_115, 5.007_130];

/// How far a device may be off: its sums run in another order, not in another arithmetic.
const TOLERANCE: f64 = 1e-3;

/// The same in 16 bits, where each number is rounded to eight bits of mantissa.
const ROUNDED_TOLERANCE: f64 = 0.1;

/// Evaluates the built-in model on each of the devices.
pub(super) fn run(devices: &[Device]) -> Result<SelfTest, Fault> {
    let begun = Instant::now();
    let mut worst = 0.0_f64;
    for device in devices {
        worst = worst.max(on(device)?);
    }
    Ok(SelfTest {
        worst,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Returns how far the losses on a device are off.
fn on(device: &Device) -> Result<f64, Fault> {
    let wrong = |found: &[f64], how: &str| {
        let text = format!("the built-in model has losses {found:?} instead of {KNOWN:?} {how}");
        Fault::machine(MachineFaultKind::Device, text)
    };
    let found = losses(device, Dtype::F32, Attention::Eager)?;
    let worst = apart(&found, &KNOWN).max(apart(&found, &referenced(device)?));
    if worst > TOLERANCE {
        return Err(wrong(&found, "in f32"));
    }
    // What models are judged with on a GPU: other kernels, and tensor cores.
    if device.is_cuda() {
        let found = losses(device, Dtype::Bf16, Attention::Flash)?;
        if apart(&found, &KNOWN) > ROUNDED_TOLERANCE {
            return Err(wrong(&found, "in bf16"));
        }
    }
    Ok(worst)
}

/// Returns the largest difference; a NaN is infinitely far from everything.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    let difference = |(found, expected): (&f64, &f64)| (found - expected).abs();
    let no_nan = |off: f64| if off.is_nan() { f64::INFINITY } else { off };
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found.iter().zip(expected).map(difference).map(no_nan);
    differences.fold(0.0, f64::max)
}

fn spec() -> Result<DecoderSpec, Fault> {
    DecoderSpec::parse(CONFIG.as_bytes(), Architecture::Llama, Compatibility::V4_40)
        .map_err(|error| Fault::machine(MachineFaultKind::Bug, error))
}

fn samples() -> [TokenizedSample; 3] {
    let sample = |length: u32, prompt_len| TokenizedSample {
        ids: (0..length).map(|t| (t * t + 7 * t + length) % 64).collect(),
        prompt_len,
    };
    [sample(9, 3), sample(40, 11), sample(64, 1)]
}

fn losses(device: &Device, dtype: Dtype, attention: Attention) -> Result<Vec<f64>, Fault> {
    let (spec, samples) = (spec()?, samples());
    let build = Build {
        spec: &spec,
        dtype,
        attention,
        device,
    };
    let model = build
        .build(|parameter| weights(parameter, device)?.to_dtype(tensor_dtype(dtype)))
        .map_err(|error| fault::of_tensors(&error))?;
    let plan = PackingPlan::new(&samples, 8192);
    let rounding = loss::Rounding::default();
    let losses = loss::evaluate(&[model], &samples, &plan, rounding, |_| {})?;
    Ok(losses.losses)
}

fn referenced(device: &Device) -> Result<Vec<f64>, Fault> {
    let spec = spec()?;
    let build = Build {
        spec: &spec,
        dtype: Dtype::F32,
        attention: Attention::Eager,
        device,
    };
    // The reference wants each tensor of the checkpoint by itself.
    let mut tensors = Tensors::new();
    let losses = build
        .build(|parameter| {
            let whole = weights(parameter, device)?;
            let rows = rows_of(parameter, &spec);
            let mut first = 0;
            for (name, rows) in parameter.parts.iter().zip(rows) {
                tensors.insert(name.clone(), whole.narrow(0, first, rows)?.contiguous()?);
                first += rows;
            }
            Ok(whole)
        })
        .and_then(|_| reference::losses(tensors, &spec, &samples(), device, &|_| ()))
        .map_err(|error| fault::of_tensors(&error))?;
    losses.map_err(|limit| Fault::machine(MachineFaultKind::Bug, limit))
}

/// Returns how many rows each part of a parameter has.
fn rows_of(parameter: &Parameter, spec: &DecoderSpec) -> Vec<usize> {
    let keys = spec.kv_heads * spec.head_dim;
    match parameter.parts.len() {
        3 => vec![spec.heads * spec.head_dim, keys, keys],
        parts => vec![parameter.shape[0] / parts; parts],
    }
}

/// Weights without any pattern a matrix product could hide: digits of a linear congruence.
fn weights(parameter: &Parameter, device: &Device) -> candle_core::Result<Tensor> {
    let seed = parameter.parts.iter().flat_map(|part| part.bytes());
    let mut state = seed.fold(17_u32, |state, byte| {
        state.wrapping_mul(31).wrapping_add(byte.into())
    });
    let count = parameter.shape.iter().product();
    let is_norm = parameter.shape.len() == 1;
    let values: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
        if is_norm {
            1.0 + noise * 0.2
        } else {
            noise * 0.5
        }
    })
    .take(count)
    .collect();
    Tensor::from_vec(values, parameter.shape.as_slice(), device)
}

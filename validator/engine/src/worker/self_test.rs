//! A tiny built-in model with known losses: does the device compute as it should?

use std::time::Instant;

use candle_core::{Device, Tensor};
use model::{
    Architecture, Attention, Compatibility, Dtype, Fault, MachineFaultKind, PackingPlan,
    TokenizedSample, config::DecoderSpec, protocol::SelfTest,
};

use crate::{
    decoder::{Build, Parameter},
    fault, loss,
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

/// Evaluates the built-in model on the device.
pub(super) fn run(device: &Device) -> Result<SelfTest, Fault> {
    let begun = Instant::now();
    let losses = losses(device)?;
    let difference = |(loss, known): (&f64, &f64)| (loss - known).abs();
    // A NaN must not get lost in a maximum.
    let worst = losses
        .iter()
        .zip(&KNOWN)
        .map(difference)
        .fold(0.0, |worst: f64, off| {
            if off.is_nan() {
                f64::INFINITY
            } else {
                worst.max(off)
            }
        });
    if losses.len() != KNOWN.len() || worst > TOLERANCE {
        let text = format!("the built-in model has losses {losses:?} instead of {KNOWN:?}");
        return Err(Fault::machine(MachineFaultKind::Device, text));
    }
    Ok(SelfTest {
        worst,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn losses(device: &Device) -> Result<Vec<f64>, Fault> {
    let spec = DecoderSpec::parse(CONFIG.as_bytes(), Architecture::Llama, Compatibility::V4_40)
        .map_err(|error| Fault::machine(MachineFaultKind::Bug, error))?;
    let build = Build {
        spec: &spec,
        dtype: Dtype::F32,
        attention: Attention::Eager,
        device,
    };
    let model = build
        .build(|parameter| weights(parameter, device))
        .map_err(|error| fault::of_tensors(&error))?;
    let sample = |length: u32, prompt_len| TokenizedSample {
        ids: (0..length).map(|t| (t * t + 7 * t + length) % 64).collect(),
        prompt_len,
    };
    let samples = [sample(9, 3), sample(40, 11), sample(64, 1)];
    let plan = PackingPlan::new(&samples, 8192);
    let losses = loss::evaluate(&model, &samples, &plan, loss::Rounding::default(), |_| {})?;
    Ok(losses.losses)
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

//! candle-transformers' own models against the Python validator's losses and against ours.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{fs, path::PathBuf};

use candle_core::Device;
use engine::reference;
use model::{Architecture, Compatibility, TokenizedSample, config::DecoderSpec};
use serde_json::Value;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn samples(tokenizer: &str) -> Vec<TokenizedSample> {
    serde_json::from_value(json(&format!("tokenized_{tokenizer}.json"))["samples"].take()).unwrap()
}

fn spec(name: &str) -> DecoderSpec {
    let config = fs::read(fixtures().join("models").join(name).join("config.json")).unwrap();
    let architecture = Architecture::declared(&config).unwrap();
    DecoderSpec::parse(&config, architecture, Compatibility::V4_40).unwrap()
}

/// A third opinion on every golden model.
#[test]
fn golden_losses_are_confirmed_independently() {
    let golden = json("losses.json");
    let mut left_out = Vec::new();
    for (name, golden) in golden["models"].as_object().unwrap() {
        let run = &golden["runs"]["float32/eager"];
        let all = samples(golden["tokenizer"].as_str().unwrap());
        // The shortest ones: a pass for each token of a response takes its time.
        let mut chosen: Vec<(usize, f64)> = run["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|index| index.as_u64().unwrap() as usize)
            .zip(run["losses"].as_array().unwrap().iter().map(Value::as_f64))
            .filter_map(|(index, loss)| Some((index, loss?)))
            .collect();
        chosen.sort_by_key(|&(index, _)| all[index].ids.len());
        chosen.truncate(3);
        let some: Vec<_> = chosen
            .iter()
            .map(|&(index, _)| all[index].clone())
            .collect();
        let folder = fixtures().join("models").join(name);
        let found =
            reference::of_directory(&folder, &spec(name), &some, &Device::Cpu, &|_| ()).unwrap();
        match found {
            Ok(losses) => {
                for (found, (index, expected)) in losses.iter().zip(&chosen) {
                    let apart = (found - expected).abs();
                    assert!(apart < 1e-4, "{name} sample {index}: {found}, {expected}");
                }
            }
            Err(what) => left_out.push(format!("{name}: {what}")),
        }
    }
    assert_eq!(
        left_out, [""; 0],
        "each golden model is within what the reference can do"
    );
}

#[test]
fn what_the_reference_leaves_out_is_named() {
    let parallel = DecoderSpec {
        parallel_residual: true,
        ..spec("stablelm_bias")
    };
    let folder = fixtures().join("models/stablelm_bias");
    let found = reference::of_directory(&folder, &parallel, &[], &Device::Cpu, &|_| ()).unwrap();
    assert_eq!(
        found.unwrap_err(),
        "candle-transformers' StableLmForCausalLM leaves out parallel residuals"
    );
}

#[test]
fn odd_samples_are_as_odd_as_ours() {
    let sample = |ids: &[u32], prompt_len| TokenizedSample {
        ids: ids.to_vec(),
        prompt_len,
    };
    let odd = [
        sample(&[1, 2, 3], 3),
        sample(&[1, 4_000_000], 1),
        sample(&[], 0),
    ];
    let folder = fixtures().join("models/llama_gqa");
    let found =
        reference::of_directory(&folder, &spec("llama_gqa"), &odd, &Device::Cpu, &|_| ()).unwrap();
    let losses = found.unwrap();
    assert!(losses[0].is_nan() && losses[2].is_nan(), "{losses:?}");
    assert!(losses[1].is_infinite() && losses[1] > 0.0);
}

//! Losses of tiny models against those of the Python validator.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use candle_core::Device;
#[cfg(feature = "cuda")]
use engine::device::DeviceSpec;
use engine::{
    decoder::Model,
    load::{LoadOptions, LoadReport, Placement, load},
    loss::{Rounding, evaluate},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, PackingPlan, TokenizedSample,
    config::DecoderSpec,
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// What a build with a GPU computes on is its GPU, real or simulated.
fn device() -> Device {
    #[cfg(feature = "cuda")]
    return DeviceSpec::Cuda(vec![0]).open().unwrap().devices.remove(0);
    #[cfg(not(feature = "cuda"))]
    Device::Cpu
}

fn model(name: &str, dtype: Dtype, attention: Attention) -> (Vec<Model>, LoadReport) {
    model_on(Placement::Copies(&[device()]), name, dtype, attention)
}

fn model_on(
    placement: Placement<'_>,
    name: &str,
    dtype: Dtype,
    attention: Attention,
) -> (Vec<Model>, LoadReport) {
    let folder = fixtures().join("models").join(name);
    let config = fs::read(folder.join("config.json")).unwrap();
    let architecture = Architecture::declared(&config).unwrap();
    let spec = DecoderSpec::parse(&config, architecture, Compatibility::V4_40).unwrap();
    let options = LoadOptions {
        dtype,
        attention,
        placement,
    };
    load(&folder, &spec, options, &|_| ()).unwrap()
}

fn samples(tokenizer: &str) -> Vec<TokenizedSample> {
    let tokenized = json(&format!("tokenized_{tokenizer}.json"));
    let rows = tokenized["samples"].as_array().unwrap();
    rows.iter().map(sample).collect()
}

fn sample(row: &Value) -> TokenizedSample {
    let ids = row["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32);
    let prompt_len = row["prompt_len"].as_u64().unwrap() as usize;
    TokenizedSample {
        ids: ids.collect(),
        prompt_len,
    }
}

fn losses(model: &[Model], samples: &[TokenizedSample], pack_tokens: usize) -> Vec<f64> {
    let plan = PackingPlan::new(samples, pack_tokens);
    let tokens = AtomicU64::new(0);
    let progress = |more| {
        tokens.fetch_add(more, Ordering::Relaxed);
    };
    let done = evaluate(model, samples, &plan, Rounding::AsReference, progress).unwrap();
    assert_eq!(
        tokens.into_inner(),
        done.counters.tokens,
        "progress adds up to all tokens"
    );
    done.losses
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

/// The simulated GPU takes a fraction of a second for each tile of an attention: long sequences are left to the
/// tests of the CPU.
const LONGEST: Option<usize> = if cfg!(feature = "cudasim") {
    Some(80)
} else {
    None
};

fn is_long(sample: &TokenizedSample) -> bool {
    LONGEST.is_some_and(|longest| sample.ids.len() > longest)
}

/// NaN and infinity have to be the same, others to be near.
fn assert_near(found: f64, expected: f64, tolerance: f64, what: &str) {
    let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
    assert!(
        same || (found - expected).abs() <= tolerance,
        "{what}: {found}, expected {expected}, {:e} apart",
        (found - expected).abs()
    );
}

/// Every golden loss in f32, packed and one at a time.
#[test]
fn losses_in_f32_are_those_of_the_reference() {
    let golden = json("losses.json");
    for (name, golden) in golden["models"].as_object().unwrap() {
        let mut all = samples(golden["tokenizer"].as_str().unwrap());
        // They come last.
        let longer = all.iter().position(is_long);
        all.truncate(longer.unwrap_or(all.len()));
        assert!(all.len() > 4);
        let (model, _) = model(name, Dtype::F32, Attention::Sdpa);
        let packed = losses(&model, &all, 8192);
        // By themselves, a few are enough there.
        let alone = if cfg!(feature = "cudasim") {
            4
        } else {
            all.len()
        };
        let single = losses(&model, &all[..alone], 1);
        for run in ["float32/sdpa", "float32/eager"] {
            let run = &golden["runs"][run];
            let expected = run["losses"].as_array().unwrap();
            for (index, expected) in run["samples"].as_array().unwrap().iter().zip(expected) {
                let index = index.as_u64().unwrap() as usize;
                if index >= all.len() {
                    continue;
                }
                let what = format!("{name} sample {index}");
                assert_near(packed[index], number(expected), 1e-4, &what);
                if let Some(single) = single.get(index) {
                    assert_near(packed[index], *single, 1e-5, &format!("{what}, packed"));
                }
            }
        }
    }
}

/// Many samples or one, shared by teams or by the threads of one team: the same bits.
#[test]
fn losses_do_not_depend_on_the_number_of_threads() {
    for (name, tokenizer) in [("llama_gqa", "llama3"), ("stablelm_nobias_gqa", "zephyr")] {
        let all = samples(tokenizer);
        let (model, _) = model_on(
            Placement::Copies(&[Device::Cpu]),
            name,
            Dtype::F32,
            Attention::Sdpa,
        );
        for some in [all.as_slice(), &all[..1]] {
            let bits = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let losses = pool.build().unwrap().install(|| losses(&model, some, 8192));
                losses.into_iter().map(f64::to_bits).collect::<Vec<_>>()
            };
            let one = bits(1);
            for threads in [2, 3, 7] {
                assert_eq!(one, bits(threads), "{name} on {threads} threads");
            }
        }
    }
}

/// In 16 bits every implementation rounds differently: single losses are near, their mean nearer.
#[test]
fn losses_in_bf16_are_near_those_of_the_reference() {
    let golden = json("losses.json");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    for (name, golden) in golden["models"].as_object().unwrap() {
        let run = |kind: &str| -> Vec<f64> {
            let losses = golden["runs"][kind]["losses"].as_array().unwrap();
            losses.iter().map(number).collect()
        };
        // What 16 bits do to the reference itself: much, to models whose activations nearly overflow.
        let exact = run("float32/sdpa");
        let apart = |losses: &[f64]| {
            let each = losses.iter().zip(&exact).map(|(a, b)| (a - b).abs());
            (
                each.fold(0.1, f64::max),
                (mean(losses) - mean(&exact)).abs(),
            )
        };
        for (attention, kind) in [
            (Attention::Eager, "bfloat16/eager"),
            (Attention::Sdpa, "bfloat16/sdpa"),
        ] {
            let expected = run(kind);
            let (one, all) = match apart(&expected) {
                _ if cfg!(feature = "cuda") && name == "norm_soft_refused" => (1.0, 0.5),
                (one, all) if cfg!(feature = "cuda") => (one, all.max(0.08)),
                (one, all) => (one, all.max(0.06)),
            };
            let (model, _) = model(name, Dtype::Bf16, attention);
            let samples = &samples(golden["tokenizer"].as_str().unwrap())[..expected.len()];
            let found = losses(&model, samples, 8192);
            let what = format!("{name}, {kind}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_near(*found, *expected, one, &what);
            }
            assert_near(mean(&found), mean(&expected), all, &what);
            if model[0].spec().loss_in_logits_dtype {
                // The loss itself is a number of 16 bits: a multiple of 1/32 from 4 on.
                let fractions = found.iter().map(|loss| (loss * 32.0).fract().abs());
                assert!(fractions.max_by(f64::total_cmp) < Some(1e-9), "{found:?}");
            }
        }
    }
}

#[test]
fn odd_inputs_give_what_the_reference_gives() {
    let special = json("special_losses.json");
    let (model, _) = model(
        special["model"].as_str().unwrap(),
        Dtype::F32,
        Attention::Sdpa,
    );
    let mut rows = special["rows"].as_array().unwrap().clone();
    rows.retain(|row| !is_long(&sample(row)));
    let samples: Vec<_> = rows.iter().map(sample).collect();
    for pack_tokens in [8192, 1] {
        let losses = losses(&model, &samples, pack_tokens);
        for (row, loss) in rows.iter().zip(losses) {
            assert_near(
                loss,
                number(&row["loss"]),
                1e-4,
                row["name"].as_str().unwrap(),
            );
        }
    }
}

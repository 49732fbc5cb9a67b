//! Losses of models with unusual configurations against those of two releases of transformers.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use candle_core::Device;
use engine::{
    load::{LoadOptions, Placement, load},
    loss::{Rounding, evaluate},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, PackingPlan, TokenizedSample,
    config::DecoderSpec,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    samples: Vec<TokenizedSample>,
    models: BTreeMap<String, GoldenModel>,
}

#[derive(Deserialize)]
struct GoldenModel {
    architecture: Architecture,
    /// Losses of the samples by kind of attention.
    losses: BTreeMap<String, Vec<f64>>,
}

fn compare(release: &str, compatibility: Compatibility) {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/variants");
    let golden = fs::read(fixtures.join(format!("losses-{release}.json"))).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let mut wrong = Vec::new();
    for (name, of_model) in &golden.models {
        let folder = fixtures.join(name);
        let config = fs::read(folder.join("config.json")).unwrap();
        let spec = DecoderSpec::parse(&config, of_model.architecture, compatibility).unwrap();
        let (dtype, attention) = (Dtype::F32, Attention::Sdpa);
        let options = LoadOptions {
            dtype,
            attention,
            placement: Placement::Copies(&[Device::Cpu]),
        };
        let (model, report) = load(&folder, &spec, options, &|_| ()).unwrap();
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        for pack_tokens in [8192, 1] {
            let plan = PackingPlan::new(&golden.samples, pack_tokens);
            let losses = evaluate(
                &model,
                &golden.samples,
                &plan,
                Rounding::AsReference,
                |_| (),
            );
            let losses = losses.unwrap().losses;
            for (attention, expected) in &of_model.losses {
                let apart = losses.iter().zip(expected).map(|(a, b)| (a - b).abs());
                let worst = apart.fold(0.0, f64::max);
                if worst > 1e-5 || worst.is_nan() {
                    wrong.push(format!("{name} {attention}: {worst:e} apart, {losses:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unusual_models_are_what_transformers_4_40_makes_of_them() {
    compare("4.40.0", Compatibility::V4_40);
}

#[test]
fn unusual_models_are_what_todays_transformers_makes_of_them() {
    compare("current", Compatibility::Current);
}

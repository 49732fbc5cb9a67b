//! Odd checkpoints and architectures: what is loaded, with which losses, and what is refused, case by
//! case as transformers 4.40.0 and 5.24.0 have it.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Device;
use engine::{
    load::{LoadOptions, Placement, load},
    loss::{Rounding, evaluate},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, Fault, PackingPlan, TokenizedSample,
    config::DecoderSpec, layout::Layout,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    architecture: Architecture,
    /// The folder that the case's own files are laid over.
    base: Option<String>,
    /// Files of the base that the case lacks.
    removed: Vec<String>,
    samples: Vec<TokenizedSample>,
    /// Losses in bf16 by 5.24.0, of an architecture that the golden ones lack.
    bf16: Option<Vec<f64>>,
    /// By release: losses, null if it refuses, "random" if it makes up what is not there.
    #[serde(flatten)]
    answers: BTreeMap<String, Value>,
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn losses(
    folder: &Path,
    case: &Case,
    rules: Compatibility,
    dtype: Dtype,
) -> Result<Vec<f64>, Fault> {
    let refused =
        |error: &dyn std::fmt::Display| Fault::model(model::ModelFaultKind::Config, error);
    let files = engine::folder::Folder::open(folder)?;
    let config = Layout::config_of(&files).map_err(|error| refused(&format!("{error:?}")))?;
    let config = fs::read(folder.join(config)).unwrap();
    let spec = DecoderSpec::parse(&config, case.architecture, rules);
    let spec = spec.map_err(|error| refused(&error))?;
    let options = LoadOptions {
        dtype,
        attention: Attention::Eager,
        placement: Placement::Copies(&[Device::Cpu]),
    };
    let (model, _) = load(folder, &spec, options, &|_| ())?;
    let plan = PackingPlan::new(&case.samples, 64);
    let losses = evaluate(&model, &case.samples, &plan, Rounding::AsReference, |_| ())?;
    Ok(losses.losses)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/admission")
}

fn cases() -> BTreeMap<String, Case> {
    let cases = fs::read(fixtures().join("cases.json")).unwrap();
    serde_json::from_slice(&cases).unwrap()
}

/// Lays out the folder of a case.
fn lay_out(name: &str, case: &Case) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if let Some(base) = &case.base {
        copy(&fixtures().join("bases").join(base), folder.path());
    }
    for file in &case.removed {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    copy(&fixtures().join("cases").join(name), folder.path());
    folder
}

fn check(rules: Compatibility) {
    let cases = cases();
    let release = serde_json::to_value(rules).unwrap();
    let mut wrong = Vec::new();
    for (name, case) in &cases {
        let folder = lay_out(name, case);
        let found = losses(folder.path(), case, rules, Dtype::F32);
        let expected = &case.answers[release.as_str().unwrap()];
        let expected: Option<Vec<f64>> = serde_json::from_value(expected.clone()).ok().flatten();
        let as_expected = match (&found, &expected) {
            (Err(fault), None) => fault.is_models(),
            (Ok(found), Some(expected)) => found
                .iter()
                .zip(expected)
                .all(|(found, expected)| (found - expected).abs() < 1e-4),
            _ => false,
        };
        if !as_expected {
            wrong.push(format!("{name}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        cases.len()
    );
}

#[test]
fn transformers_4_40_and_we_load_the_same() {
    check(Compatibility::V4_40);
}

#[test]
fn todays_transformers_and_we_load_the_same() {
    check(Compatibility::Current);
}

/// In 16 bits every implementation rounds differently: single losses are near, means nearer, and
/// over all of them there is no lean.
#[test]
fn losses_in_bf16_of_newer_architectures_are_near_those_of_the_reference() {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mut all = Vec::new();
    for (name, case) in &cases() {
        let Some(expected) = &case.bf16 else { continue };
        let folder = lay_out(name, case);
        let found = losses(folder.path(), case, Compatibility::Current, Dtype::Bf16).unwrap();
        let pairs = found.iter().zip(expected);
        let apart: Vec<f64> = pairs.map(|(found, expected)| found - expected).collect();
        assert!(
            apart.iter().all(|apart| apart.abs() < 0.1),
            "{name}: {apart:?}"
        );
        assert!(mean(&apart).abs() < 0.06, "{name}: {apart:?}");
        all.extend(apart);
    }
    assert_eq!(all.len(), 51);
    assert!(mean(&all).abs() < 0.01, "{}", mean(&all));
}

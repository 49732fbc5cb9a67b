//! Loading: what is reported, and what is refused with which reason.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use candle_core::{DType, Device, Tensor};
use engine::{
    decoder::Model,
    load::{LoadOptions, LoadReport, Placement, load},
    loss::{Rounding, evaluate},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, Fault, ModelFaultKind, PackingPlan,
    TokenizedSample, config::DecoderSpec,
};
use sha2::{Digest, Sha256};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/models")
        .join(name)
}

fn read(folder: &Path) -> Result<(Vec<Model>, LoadReport), Fault> {
    let config = fs::read(golden("llama_gqa").join("config.json")).unwrap();
    let spec = DecoderSpec::parse(&config, Architecture::Llama, Compatibility::V4_40).unwrap();
    let options = LoadOptions {
        dtype: Dtype::F32,
        attention: Attention::Flash,
        placement: Placement::Copies(&[Device::Cpu]),
    };
    let bytes = AtomicU64::new(0);
    let (model, report) = load(folder, &spec, options, &|more| {
        bytes.fetch_add(more, Ordering::Relaxed);
    })?;
    assert_eq!(
        bytes.into_inner(),
        report.bytes_read,
        "progress adds up to what was read"
    );
    Ok((model, report))
}

fn losses(model: &[Model]) -> Vec<u64> {
    let samples = [TokenizedSample {
        ids: (0..50).map(|i| i * 7 % 1280).collect(),
        prompt_len: 5,
    }];
    let plan = PackingPlan::new(&samples, 8192);
    let done = evaluate(model, &samples, &plan, Rounding::AsReference, |_| ()).unwrap();
    done.losses.iter().map(|loss| loss.to_bits()).collect()
}

/// Writes the golden model's tensors, changed, as a new model.
fn changed(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let file = golden("llama_gqa").join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    change(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let target = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(&tensors, Some(metadata), &target).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    let fault = read(folder).unwrap_err();
    let Fault::Model(fault) = fault else {
        return format!("not the model's: {fault}");
    };
    assert_eq!(fault.kind, ModelFaultKind::Weights, "{fault}");
    fault.text
}

#[test]
fn shards_and_a_single_file_are_the_same_model() {
    let (single, report) = read(&golden("llama_gqa")).unwrap();
    let (sharded, of_shards) = read(&golden("llama_gqa_sharded")).unwrap();
    assert_eq!(losses(&single), losses(&sharded));
    assert_eq!(report.parameters, 224_688);
    assert_eq!(report.norms, of_shards.norms);
    for (folder, report) in [("llama_gqa", report), ("llama_gqa_sharded", of_shards)] {
        for (name, digest) in report.digests {
            let bytes = fs::read(golden(folder).join(name)).unwrap();
            let expected: [u8; 32] = Sha256::digest(bytes).into();
            assert_eq!(digest, expected);
        }
    }
}

#[test]
fn any_floating_point_dtype_is_converted() {
    let rounded = changed(|tensors| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::BF16).unwrap();
        }
    });
    let (expected, _) = read(rounded.path()).unwrap();
    let wide = changed(|tensors| {
        for (name, tensor) in tensors {
            let exact = tensor.to_dtype(DType::BF16).unwrap();
            let dtype = if name.contains("mlp") {
                DType::F64
            } else {
                DType::F32
            };
            *tensor = exact.to_dtype(dtype).unwrap();
        }
    });
    let (found, _) = read(wide.path()).unwrap();
    assert_eq!(losses(&expected), losses(&found));
}

#[test]
fn what_is_wrong_is_said() {
    let missing = changed(|tensors| drop(tensors.remove("model.layers.1.mlp.up_proj.weight")));
    assert_eq!(
        refusal(missing.path()),
        "1 tensors are missing: model.layers.1.mlp.up_proj.weight"
    );
    let misshapen = changed(|tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        *norm = norm.narrow(0, 0, 3).unwrap();
    });
    let text = refusal(misshapen.path());
    assert!(
        text.starts_with("tensor \"model.norm.weight\" has shape [3]"),
        "{text}"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        refusal(empty.path()),
        "neither model.safetensors nor model.safetensors.index.json is there"
    );
    let index = br#"{"metadata": {}, "weight_map": {"lm_head.weight": "gone.safetensors"}}"#;
    shared::file::write_atomic(&empty.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(refusal(empty.path()), "gone.safetensors is missing");
}

#[test]
fn tensors_that_are_not_used_are_named() {
    let extra = changed(|tensors| {
        let tensor = tensors["model.norm.weight"].clone();
        tensors.insert(
            "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(),
            tensor,
        );
    });
    let (_, report) = read(extra.path()).unwrap();
    assert_eq!(
        report.warnings,
        ["tensors outside the model (1): model.layers.0.self_attn.rotary_emb.inv_freq"]
    );
}

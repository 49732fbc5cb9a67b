//! Parameter counts, norms and verdicts of whole model folders, as the Python validator has them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use model::{
    Dtype,
    config::{Architecture, Compatibility, DecoderSpec},
    header::Header,
    inventory::{INDEX_FILE, Inventory, SINGLE_FILE, shards_of_index},
    norms::{FileNorms, NormLimits, ProjectionNorms},
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures")
}

#[test]
fn models_have_the_parameters_and_norms_of_the_reference() {
    let golden = fs::read(fixtures().join("params_norms.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let mut seen = 0;
    for (name, golden) in golden["models"].as_object().unwrap() {
        let folder = fixtures().join("models").join(name);
        if !folder.exists() {
            continue;
        }
        seen += 1;
        let config = fs::read(folder.join("config.json")).unwrap();
        let architecture = Architecture::declared(&config).unwrap();
        let spec = DecoderSpec::parse(&config, architecture, Compatibility::V4_40).unwrap();
        let files = fs::read(folder.join(INDEX_FILE)).map_or_else(
            |_| vec![SINGLE_FILE.to_owned()],
            |json| shards_of_index(&json).unwrap(),
        );
        let mut headers = BTreeMap::new();
        let mut norms = ProjectionNorms::default();
        for file in files {
            let bytes = fs::read(folder.join(&file)).unwrap();
            let header = Header::read(&mut bytes.as_slice(), bytes.len() as u64)
                .unwrap()
                .unwrap();
            let mut of_file = FileNorms::new(&header);
            bytes.chunks(10_007).for_each(|piece| of_file.update(piece));
            norms.extend(of_file.finish().unwrap());
            headers.insert(file, header);
        }
        let inventory = Inventory::take(&spec, &headers).unwrap();
        assert_eq!(
            inventory.parameters,
            golden["parameter_count"].as_u64().unwrap(),
            "{name}"
        );
        for (key, dtype, step) in [
            ("no_dtype_given", Dtype::F32, 1e-5),
            ("bfloat16", Dtype::Bf16, 1.0 / 128.0),
            ("float16", Dtype::F16, 1.0 / 1024.0),
        ] {
            let verdict = norms.judge(spec.layers, dtype, &NormLimits::default());
            assert_eq!(
                verdict.accepted(),
                golden[key]["accepted"].as_bool().unwrap(),
                "{name} {key}: {verdict}"
            );
            for (layer, projection, norm) in norms.rounded(dtype) {
                let expected = &golden[key]["norms"][format!("{layer}.{projection}")];
                let Some(expected) = expected.as_f64() else {
                    assert!(!norm.is_finite(), "{name} {key} {layer}.{projection}");
                    continue;
                };
                // The reference sums in f32, so it may be one step of the dtype away.
                assert!(
                    (norm - expected).abs() <= expected * step,
                    "{name} {key} {layer}.{projection}: {norm}, expected {expected}"
                );
            }
        }
    }
    assert!(seen >= 11, "only {seen} of the golden models are there");
}

//! Which files are a model's: for each tokenizer class and each kind of repository.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hub::{ListedFile, Listing};
use model::{Compatibility, config::MAX_CONFIG_BYTES, tokenizer_class::MAX_VOCABULARY_BYTES};
use models::manifest::{Contents, Manifest, Missing};

use crate::world::fixture_json;

/// A repository of these files; JSON contents where they matter.
fn manifest(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
    Ok(found(files, &[])?.files.into_keys().collect())
}

/// The same; some files are listed with other sizes than their contents have.
fn found(files: &[(&str, &str)], sizes: &[(&str, u64)]) -> Result<Manifest, String> {
    let entry = |(path, content): &(&str, &str)| {
        let listed = sizes.iter().find(|(name, _)| name == path);
        let size = listed.map_or(content.len() as u64, |&(_, size)| size);
        (
            (*path).to_owned(),
            ListedFile {
                size: Some(size),
                blob_id: None,
                sha256: None,
            },
        )
    };
    let listing = Listing {
        commit: "0".repeat(40),
        files: files.iter().map(entry).collect(),
    };
    let all: BTreeMap<&str, &str> = files.iter().copied().collect();
    let mut contents = Contents::new();
    loop {
        match Manifest::of(&listing, &contents, Compatibility::V4_40) {
            Ok(manifest) => return Ok(manifest),
            Err(Missing::Never(reason)) => return Err(reason),
            Err(Missing::Content(path)) => {
                let content = Bytes::copy_from_slice(all[path.as_str()].as_bytes());
                assert!(
                    contents.insert(path.clone(), content).is_none(),
                    "{path} asked for twice"
                );
            }
        }
    }
}

const LLAMA: &str = r#"{"model_type":"llama"}"#;
const FAST: &str = r#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#;

#[test]
fn each_tokenizer_class_has_its_files() {
    let golden = fixture_json("tokenizer_files.json");
    let by_class = golden["files_by_class"].as_object().unwrap();
    let every: BTreeSet<&str> = by_class
        .values()
        .filter_map(|files| files.as_array())
        .flatten()
        .map(|file| file.as_str().unwrap())
        .collect();
    let mut seen = 0;
    for (class, files) in by_class {
        let Some(files) = files.as_array() else {
            continue;
        };
        // A slow class is never loaded where it has a fast twin.
        if by_class
            .get(&format!("{class}Fast"))
            .is_some_and(serde_json::Value::is_array)
        {
            continue;
        }
        let tokenizer_config = format!(r#"{{"tokenizer_class":"{class}"}}"#);
        let mut repository = vec![
            ("config.json", LLAMA),
            ("model.safetensors", ""),
            ("tokenizer_config.json", tokenizer_config.as_str()),
        ];
        let mut expected: BTreeSet<String> = repository
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .collect();
        repository.extend(every.iter().map(|path| (*path, "{}")));
        expected.extend(files.iter().map(|file| file.as_str().unwrap().to_owned()));
        let found: BTreeSet<String> = manifest(&repository).unwrap().into_iter().collect();
        assert_eq!(found, expected, "{class}");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn each_kind_of_repository_has_its_files() {
    let index = r#"{"metadata":{},"weight_map":{"a":"shards/2.safetensors","b":"1.safetensors"}}"#;
    let listed = |files: &[(&str, &str)]| manifest(files).unwrap().join(" ");
    let refused = |files: &[(&str, &str)]| manifest(files).unwrap_err();

    // A single file is preferred to an index, which is then not fetched.
    let both = [
        ("config.json", LLAMA),
        ("model.safetensors", ""),
        ("model.safetensors.index.json", index),
        ("tokenizer_config.json", FAST),
        ("tokenizer.json", "{}"),
        ("pytorch_model.bin", ""),
        ("shards/2.safetensors", ""),
    ];
    insta::assert_snapshot!(listed(&both), @"config.json model.safetensors tokenizer.json tokenizer_config.json");

    let sharded = [
        ("config.json", LLAMA),
        ("generation_config.json", "no JSON"),
        ("model.safetensors.index.json", index),
        ("1.safetensors", ""),
        ("shards/2.safetensors", ""),
        ("shards/3.safetensors", ""),
        ("tokenizer_config.json", FAST),
    ];
    insta::assert_snapshot!(listed(&sharded), @"1.safetensors config.json generation_config.json model.safetensors.index.json shards/2.safetensors tokenizer_config.json");
    insta::assert_snapshot!(refused(&sharded[..4]), @r#"the repository has no "shards/2.safetensors""#);

    // A configuration by version takes the place of the plain one; both are fetched.
    let versions = r#"{"model_type":"llama","configuration_files":["config.json","config.4.30.0.json","config.4.41.0.json"]}"#;
    let versioned = [
        ("config.json", versions),
        ("config.4.30.0.json", r#"{"model_type":"gemma"}"#),
        ("config.4.41.0.json", "{}"),
        ("model.safetensors", ""),
        ("tokenizer.model", ""),
        ("vocab.json", ""),
    ];
    insta::assert_snapshot!(listed(&versioned), @"config.4.30.0.json config.json model.safetensors tokenizer.model");
    insta::assert_snapshot!(refused(&versioned[..1]), @r#"the repository has no "config.4.30.0.json""#);

    let tokenizers = r#"{"tokenizer_class":"GPT2Tokenizer","fast_tokenizer_files":["tokenizer.4.0.0.json","tokenizer.5.0.0.json"]}"#;
    let versioned_tokenizer = [
        ("config.json", LLAMA),
        ("model.safetensors", ""),
        ("tokenizer_config.json", tokenizers),
        ("tokenizer.json", "{}"),
        ("tokenizer.4.0.0.json", "{}"),
        ("tokenizer.5.0.0.json", "{}"),
        ("vocab.json", "{}"),
        ("merges.txt", ""),
        ("tokenizer.model", ""),
    ];
    insta::assert_snapshot!(listed(&versioned_tokenizer), @"config.json merges.txt model.safetensors tokenizer.4.0.0.json tokenizer_config.json vocab.json");

    // The class comes from the configuration, then from the model type.
    let of_config = r#"{"model_type":"llama","tokenizer_class":"T5Tokenizer"}"#;
    let files = |config| {
        [
            ("config.json", config),
            ("model.safetensors", ""),
            ("spiece.model", ""),
            ("tokenizer.model", ""),
            ("vocab.json", ""),
        ]
    };
    insta::assert_snapshot!(listed(&files(of_config)), @"config.json model.safetensors spiece.model");
    insta::assert_snapshot!(listed(&files(LLAMA)), @"config.json model.safetensors tokenizer.model");
    insta::assert_snapshot!(listed(&files(r#"{"model_type":"stablelm"}"#)), @"config.json model.safetensors vocab.json");
    insta::assert_snapshot!(refused(&files("[]")), @"config.json is not a JSON object");
    insta::assert_snapshot!(refused(&files(r#"{"model_type":"mamba"}"#)), @r#"no tokenizer class is named, and model type "mamba" implies none"#);
}

#[test]
fn weights_are_known_and_all_bytes_are_counted() {
    let files = [
        ("config.json", LLAMA),
        ("model.safetensors", ""),
        ("tokenizer_config.json", FAST),
        ("pytorch_model.bin", ""),
    ];
    let sizes = [("model.safetensors", 5000), ("pytorch_model.bin", 7000)];
    let manifest = found(&files, &sizes).unwrap();
    assert_eq!(
        manifest.bytes(),
        5000 + (LLAMA.len() + FAST.len()) as u64,
        "what is the model's, and no more"
    );
    assert!(manifest.is_weights("model.safetensors"));
    assert!(!manifest.is_weights("config.json"));
    assert!(!manifest.is_weights("pytorch_model.bin"));
}

#[test]
fn files_are_refused_above_their_bounds_before_they_are_fetched() {
    let files = [
        ("config.json", LLAMA),
        ("model.safetensors", ""),
        ("tokenizer_config.json", FAST),
        ("tokenizer.json", "{}"),
    ];
    for (path, most) in [
        ("config.json", MAX_CONFIG_BYTES as u64),
        ("tokenizer.json", MAX_VOCABULARY_BYTES),
    ] {
        found(&files, &[(path, most)]).unwrap();
        let refused = found(&files, &[(path, most + 1)]).unwrap_err();
        let expected = format!("{path} has {} bytes, more than {most}", most + 1);
        assert_eq!(refused, expected);
    }
    let odd = [files[0], files[1], ("tokenizer_config.json", "[]")];
    insta::assert_snapshot!(manifest(&odd).unwrap_err(), @"tokenizer_config.json is not a JSON object");
}

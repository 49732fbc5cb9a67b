//! Token ids against those of the Python validator.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::path::{Path, PathBuf};

use engine::tokenize::ChatTokenizer;
use model::{Compatibility, Conversation, TokenizedSample};
use serde_json::Value;

const TOKENIZERS: [&str; 5] = [
    "llama3",
    "llama3_always_header",
    "zephyr",
    "zephyr_gpt2class",
    "llama_spm",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn fixture(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn conversations() -> Vec<Conversation> {
    let samples = fixture("samples.json");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conversation =
        |sample: &Value| Conversation::of(text(&sample["prompt"]), text(&sample["response"]));
    samples
        .as_array()
        .unwrap()
        .iter()
        .map(conversation)
        .collect()
}

fn check(directory: &Path, golden: &str) {
    let tokenizer = ChatTokenizer::load(directory, Compatibility::V4_40).unwrap();
    let golden = fixture(golden);
    let conversations = conversations();
    let samples = tokenizer.tokenize(&conversations, 2048, &|| {}).unwrap();
    let golden = golden["samples"].as_array().unwrap();
    assert_eq!(samples.len(), golden.len());
    for ((sample, golden), conversation) in samples.iter().zip(golden).zip(&conversations) {
        let name = format!("{} sample {}", directory.display(), golden["id"]);
        if let Some(rendered) = golden["rendered"].as_str() {
            assert_eq!(
                tokenizer.render(&conversation.messages, false).unwrap(),
                rendered,
                "{name}"
            );
            let prompt = golden["rendered_prompt"].as_str().unwrap();
            assert_eq!(
                tokenizer.render(conversation.prompt(), true).unwrap(),
                prompt,
                "{name}"
            );
        }
        let expected: TokenizedSample = serde_json::from_value(golden.clone()).unwrap();
        assert_eq!(*sample, expected, "{name}");
    }
}

#[test]
fn every_golden_tokenizer_gives_the_golden_ids() {
    for name in TOKENIZERS {
        check(
            &fixtures().join("tokenizers").join(name),
            &format!("tokenized_{name}.json"),
        );
    }
}

/// Writes a variant of a golden tokenizer.
#[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
fn lay_out(variant: &Value, to: &Path) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let base = fixtures().join("tokenizers").join(text(&variant["base"]));
    for entry in std::fs::read_dir(base).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let path = to.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, value) in variant["set"].as_object().unwrap() {
        config[name] = value.clone();
    }
    for name in variant["unset"].as_array().unwrap() {
        config.as_object_mut().unwrap().remove(&text(name));
    }
    std::fs::write(path, config.to_string()).unwrap();
    for (name, value) in variant["files"].as_object().unwrap() {
        std::fs::write(to.join(name), value.to_string()).unwrap();
    }
    for name in variant["remove"].as_array().unwrap() {
        std::fs::remove_file(to.join(text(name))).unwrap();
    }
}

#[test]
fn variants_are_read_or_refused_as_by_transformers() {
    let golden = fixture("tokenizer_variants.json");
    let conversations: Vec<Conversation> =
        serde_json::from_value(golden["conversations"].clone()).unwrap();
    let length = usize::try_from(golden["sequence_length"].as_u64().unwrap()).unwrap();
    for variant in golden["variants"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        lay_out(variant, folder.path());
        let samples = ChatTokenizer::load(folder.path(), Compatibility::V4_40)
            .and_then(|tokenizer| tokenizer.tokenize(&conversations, length, &|| {}));
        let expected: Option<Vec<TokenizedSample>> =
            serde_json::from_value(variant["expected"].clone()).unwrap();
        match expected {
            Some(expected) => assert_eq!(samples, Ok(expected), "{}", variant["name"]),
            None => assert!(samples.is_err(), "{} gives {samples:?}", variant["name"]),
        }
    }
}

/// The library reads a decoder with an `expect`.
#[test]
fn a_panic_of_the_library_is_the_tokenizers_fault() {
    let temporary = tempfile::tempdir().unwrap();
    let healthy = fixtures().join("tokenizers/llama3");
    for entry in std::fs::read_dir(healthy).unwrap() {
        let path = entry.unwrap().path();
        let copy = temporary.path().join(path.file_name().unwrap());
        std::fs::copy(path, copy).unwrap();
    }
    let path = temporary.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let spoiled = text.replacen(r#""decoder":"#, r#""decoder":?"#, 1);
    assert_ne!(spoiled, text);
    shared::file::write_atomic(&path, spoiled.as_bytes()).unwrap();
    let fault = ChatTokenizer::load(temporary.path(), Compatibility::V4_40).unwrap_err();
    assert!(
        fault.is_models() && fault.to_string().contains("panic"),
        "{fault}"
    );
}

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
    let (samples, refused) = tokenizer.tokenize(&conversations, 2048, &|| {}).unwrap();
    assert_eq!(refused, [""; 0]);
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
            Some(expected) => {
                assert_eq!(samples, Ok((expected, Vec::new())), "{}", variant["name"]);
            }
            None => assert!(samples.is_err(), "{} gives {samples:?}", variant["name"]),
        }
    }
}

/// The library reads a decoder with an `expect`, and gives up where JSON is nested too deeply.
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
    let nested = format!(
        r#""decoder":{}{},"other":"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let spoiled = text.replacen(r#""decoder":"#, &nested, 1);
    assert_ne!(spoiled, text);
    shared::file::write_atomic(&path, spoiled.as_bytes()).unwrap();
    let fault = ChatTokenizer::load(temporary.path(), Compatibility::V4_40).unwrap_err();
    assert!(
        fault.is_models() && fault.to_string().contains("panic"),
        "{fault}"
    );
}

/// Folders with something odd each: flags of added tokens, files that disagree, classes, templates.
/// The ids are those of transformers 4.40.0 and 5.24.0.
#[test]
fn odd_folders_are_read_as_both_releases_read_them() {
    let golden = fixture("tokenizer_releases.json");
    let conversations: Vec<Conversation> =
        serde_json::from_value(golden["conversations"].clone()).unwrap();
    let mut wrong = Vec::new();
    for variant in golden["variants"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        lay_over(variant, folder.path());
        for (rules, release) in [
            (Compatibility::V4_40, "4.40"),
            (Compatibility::Current, "current"),
        ] {
            let expected = match &variant[release] {
                Value::String(_) => &variant["4.40"],
                answer => answer,
            };
            let tokenizer = ChatTokenizer::load(folder.path(), rules);
            let found = tokenizer.map(|tokenizer| {
                let one = |conversation: &Conversation| {
                    let conversations = std::slice::from_ref(conversation);
                    let samples = tokenizer.tokenize(conversations, 2048, &|| {});
                    samples.map_or(Value::Null, |(samples, _)| {
                        serde_json::json!([samples[0].ids, samples[0].prompt_len])
                    })
                };
                conversations.iter().map(one).collect::<Vec<_>>()
            });
            let all_refused = expected
                .as_array()
                .is_none_or(|samples| samples.iter().all(Value::is_null));
            let as_expected = match &found {
                // Which of the two fails first is of no consequence.
                Err(fault) => all_refused && fault.is_models(),
                Ok(found) => expected.as_array().is_some_and(|samples| samples == found),
            };
            if !as_expected {
                let differing = found.map(|found| {
                    let pairs = found.iter().zip(expected.as_array().into_iter().flatten());
                    pairs.filter(|(found, expected)| found != expected).count()
                });
                wrong.push(format!("{} {release}: {differing:?}", variant["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

/// Lays files over a folder of the fixtures, and fields over its `tokenizer.json`.
fn lay_over(variant: &Value, to: &Path) {
    let base = fixtures()
        .join("tokenizers")
        .join(variant["base"].as_str().unwrap());
    for entry in std::fs::read_dir(base).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    for name in variant["removed"].as_array().unwrap() {
        std::fs::remove_file(to.join(name.as_str().unwrap())).unwrap();
    }
    for (name, content) in variant["files"].as_object().unwrap() {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        shared::file::write_atomic(&path, content.as_str().unwrap().as_bytes()).unwrap();
    }
    let fields = variant["tokenizer_json"].as_object().unwrap();
    if !fields.is_empty() {
        let path = to.join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (name, value) in fields {
            file[name] = value.clone();
        }
        shared::file::write_atomic(&path, file.to_string().as_bytes()).unwrap();
    }
}

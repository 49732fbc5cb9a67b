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

//! The class table against the files a real transformers 4.40.0 asked for.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use model::{
    Compatibility::{Current, V4_40},
    tokenizer_class::{TokenizerClass, TokenizerClassError, newest_accepted},
};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(include_str!("fixtures/tokenizer_files.json")).unwrap()
}

fn resolve(
    tokenizer_config: &Value,
    config: &Value,
) -> Result<TokenizerClass, TokenizerClassError> {
    TokenizerClass::resolve(Some(tokenizer_config), config, V4_40)
}

#[test]
fn every_class_asks_for_the_files_seen() {
    let golden = golden();
    let table = golden["files_by_class"].as_object().unwrap();
    for (name, files) in table {
        let fast = format!("{name}Fast");
        let (name, files) = match table.get(&fast) {
            Some(files) => (&fast, files),
            None => (name, files),
        };
        match resolve(&json!({"tokenizer_class": name}), &json!({})) {
            Ok(class) => {
                assert_eq!(class.name(), name);
                assert_eq!(json!(class.files()), *files, "{name}");
            }
            Err(error) => {
                assert!(files.is_null(), "{name}");
                assert_eq!(error, TokenizerClassError::UnknownClass(name.clone()));
            }
        }
    }
}

#[test]
fn the_model_type_decides_last() {
    for (model_type, classes) in golden()["class_by_model_type"].as_object().unwrap() {
        let class = TokenizerClass::resolve(None, &json!({"model_type": model_type}), V4_40);
        assert_eq!(class.unwrap().name(), classes["fast"].as_str().unwrap());
    }
    let config = json!({"model_type": "llama", "tokenizer_class": "T5Tokenizer"});
    let class = resolve(&json!({"tokenizer_class": null}), &config).unwrap();
    assert_eq!(class.name(), "T5TokenizerFast");
    assert_eq!(class.vocabulary_files(), ["spiece.model"]);
    let class = resolve(&json!({"tokenizer_class": "GemmaTokenizer"}), &config).unwrap();
    assert_eq!(class.name(), "GemmaTokenizerFast");
}

#[test]
fn what_transformers_refuses_is_refused_by_name() {
    let text =
        |tokenizer_config, config| resolve(&tokenizer_config, &config).unwrap_err().to_string();
    insta::assert_snapshot!(text(json!({"tokenizer_class": "TokenizersBackend"}), json!({})),
        @r#"tokenizer class "TokenizersBackend" is not known"#);
    insta::assert_snapshot!(text(json!({"tokenizer_class": 3}), json!({})),
        @"tokenizer_class of tokenizer_config.json is malformed");
    insta::assert_snapshot!(text(json!({}), json!({"model_type": "dbrx"})),
        @r#"no tokenizer class is named, and model type "dbrx" implies none"#);
    insta::assert_snapshot!(text(json!({}), json!({})),
        @"model_type of config.json is malformed");
    let outside = json!({"tokenizer_class": "LlamaTokenizer",
        "fast_tokenizer_files": ["../other/tokenizer.4.0.0.json"]});
    insta::assert_snapshot!(text(outside, json!({})),
        @r#"file name "../other/tokenizer.4.0.0.json" is not allowed"#);
    let new = json!({"tokenizer_class": "TokenizersBackend"});
    let class = TokenizerClass::resolve(Some(&new), &json!({}), Current).unwrap();
    assert_eq!(class.name(), "PreTrainedTokenizerFast");
}

#[test]
fn versioned_files_follow_the_text_of_their_versions() {
    let newest = |names: &[&'static str]| newest_accepted("tokenizer", names.iter().copied());
    assert_eq!(newest(&["tokenizer.json"]), Ok(None));
    assert_eq!(
        newest(&[
            "tokenizer.json",
            "tokenizer.4.0.0.json",
            "tokenizer.4.39.1.json"
        ]),
        Ok(Some("tokenizer.4.39.1.json"))
    );
    assert_eq!(
        newest(&["tokenizer.4.40.0.json"]),
        Ok(Some("tokenizer.4.40.0.json"))
    );
    assert_eq!(
        newest(&["tokenizer.4.40.json"]),
        Ok(Some("tokenizer.4.40.json"))
    );
    assert_eq!(
        newest(&["tokenizer.4.40.0rc1.json"]),
        Ok(Some("tokenizer.4.40.0rc1.json"))
    );
    assert_eq!(newest(&["tokenizer.4.40.1.json"]), Ok(None));
    // "10.0" sorts before "4.39", and stops the search.
    assert_eq!(
        newest(&["tokenizer.10.0.json", "tokenizer.4.39.json"]),
        Ok(None)
    );
    assert_eq!(
        newest(&["tokenizer.latest.json"]),
        Err(TokenizerClassError::BadVersion("latest".into()))
    );
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "fast_tokenizer_files": ["tokenizer.4.1.0.json", "tokenizer.json"],
    });
    let files = [
        "tokenizer.4.1.0.json",
        "added_tokens.json",
        "special_tokens_map.json",
    ];
    assert_eq!(resolve(&config, &json!({})).unwrap().files(), files);
}

#[test]
fn todays_releases_resolve_classes_their_own_way() {
    let class = |tokenizer: Value, config: Value, bytes: bool| {
        let class = TokenizerClass::resolve(Some(&tokenizer), &config, Current).unwrap();
        class.name_for(bytes)
    };
    let named = |name: &str| json!({"tokenizer_class": name});
    let typed = |name: &str| json!({"model_type": name});
    let by_file = "PreTrainedTokenizerFast";
    for (tokenizer, config, bytes, expected) in [
        (
            named("LlamaTokenizerFast"),
            typed("llama"),
            false,
            "LlamaTokenizerFast",
        ),
        // A Llama tokenizer on bytes is one in name only.
        (named("LlamaTokenizerFast"), typed("llama"), true, by_file),
        // Types whose files are known to be wrong are not distrusted so, and overrule them.
        (
            named("LlamaTokenizer"),
            typed("phi3"),
            true,
            "LlamaTokenizerFast",
        ),
        (
            named("LlamaTokenizer"),
            typed("qwen2"),
            false,
            "Qwen2TokenizerFast",
        ),
        (named("LlamaTokenizer"), typed("mistral"), false, by_file),
        (
            named("PreTrainedTokenizerFast"),
            typed("gemma2"),
            false,
            by_file,
        ),
        (
            named("GemmaTokenizer"),
            typed("llama"),
            false,
            "GemmaTokenizerFast",
        ),
        (
            named("Arcade100kTokenizer"),
            typed("stablelm"),
            false,
            by_file,
        ),
        (named("TokenizersBackend"), json!({}), false, by_file),
        (json!({}), typed("qwen3"), false, "Qwen2TokenizerFast"),
        (json!({}), typed("llama"), false, by_file),
        (json!({}), typed("nobody-knows"), false, by_file),
    ] {
        let found = class(tokenizer.clone(), config.clone(), bytes);
        assert_eq!(found, expected, "{tokenizer} {config} {bytes}");
    }
    let files = |rules| {
        let class = TokenizerClass::resolve(Some(&named("LlamaTokenizer")), &typed("llama"), rules);
        let class = class.unwrap();
        let more = class.reads_template("additional_chat_templates/tool_use.jinja");
        (class.files().contains(&"chat_template.jinja"), more)
    };
    assert_eq!(files(Current), (true, true));
    assert_eq!(files(V4_40), (false, false));
}

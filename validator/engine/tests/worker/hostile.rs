//! Models and tokenizers made to hurt: each is refused by name, and the worker lives on.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use model::{MachineFaultKind, ModelFaultKind, TokenizedSample, protocol::ModelSource};
use serde_json::json;

use crate::process::{Worker, copy, edit_json, fixtures, kind, samples, source};

/// Evaluates a spoiled copy of a golden model, then a healthy one with the same worker.
fn refusal(spoil: impl FnOnce(&Path)) -> (Result<ModelFaultKind, MachineFaultKind>, String) {
    let temporary = tempfile::tempdir().unwrap();
    let healthy = fixtures().join("models/llama_gqa");
    let spoiled = copy(&healthy, &temporary.path().join("model"));
    spoil(&spoiled);
    let mut worker = Worker::start(&[temporary.path(), &healthy], &[]);
    let fault = worker.evaluate(source(&spoiled), samples()).unwrap_err();
    worker.evaluate(source(&healthy), samples()).unwrap();
    (kind(&fault), fault.to_string())
}

fn weights(directory: &Path) -> PathBuf {
    directory.join("model.safetensors")
}

#[test]
fn truncated_weights() {
    let (kind, text) = refusal(|model| {
        let file = OpenOptions::new().write(true).open(weights(model)).unwrap();
        file.set_len(500_000).unwrap();
    });
    assert_eq!(kind, Ok(ModelFaultKind::Weights), "{text}");
}

#[test]
fn a_header_of_a_hundred_megabytes() {
    let (kind, text) = refusal(|model| {
        let file = File::create(weights(model)).unwrap();
        file.write_all_at(&100_000_000_u64.to_le_bytes(), 0)
            .unwrap();
        file.set_len(200_000_000).unwrap();
    });
    assert_eq!(kind, Ok(ModelFaultKind::Weights), "{text}");
}

#[test]
fn a_thousand_million_layers() {
    let (kind, text) = refusal(|model| {
        edit_json(&model.join("config.json"), |config| {
            config["num_hidden_layers"] = json!(1_000_000_000);
        });
    });
    assert!(kind.is_ok(), "{text}");
}

#[test]
fn a_matrix_larger_than_memory() {
    let (kind, text) = refusal(|model| {
        edit_json(&model.join("config.json"), |config| {
            config["intermediate_size"] = json!(1_u64 << 40);
        });
    });
    assert!(
        matches!(kind, Ok(_) | Err(MachineFaultKind::OutOfMemory)),
        "{text}"
    );
}

#[test]
fn no_config_no_weights_no_directory() {
    let (kind, _) = refusal(|model| fs::remove_file(model.join("config.json")).unwrap());
    assert_eq!(kind, Ok(ModelFaultKind::Config));
    let (kind, _) = refusal(|model| fs::remove_file(weights(model)).unwrap());
    assert_eq!(kind, Ok(ModelFaultKind::Weights));
    let (kind, _) = refusal(|model| fs::remove_dir_all(model).unwrap());
    assert_eq!(kind, Err(MachineFaultKind::Storage));
}

#[test]
fn too_many_parameters_are_refused_unread() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &[]);
    let limited = ModelSource {
        max_parameters: Some(1000),
        ..source(&model)
    };
    let fault = worker.evaluate(limited, samples()).unwrap_err();
    assert_eq!(kind(&fault), Ok(ModelFaultKind::Size));
}

#[test]
fn ids_beyond_the_vocabulary_cost_their_sample_only() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &[]);
    let mut all = samples();
    all.insert(
        1,
        TokenizedSample {
            ids: vec![1, u32::MAX, 2],
            prompt_len: 1,
        },
    );
    let losses = worker.evaluate(source(&model), all).unwrap().losses;
    assert!(losses[0].is_finite() && losses[2].is_finite(), "{losses:?}");
    assert!(losses[1].is_infinite());
}

#[test]
fn no_samples_no_losses() {
    let model = fixtures().join("models/llama_gqa");
    let mut worker = Worker::start(&[&model], &[]);
    assert!(
        worker
            .evaluate(source(&model), Vec::new())
            .unwrap()
            .losses
            .is_empty()
    );
}

#[test]
fn weights_that_are_no_numbers_give_losses_that_are_none() {
    let model = fixtures().join("models/nan_weight");
    let mut worker = Worker::start(&[&model], &[]);
    let losses = worker.evaluate(source(&model), samples()).unwrap().losses;
    assert!(losses.iter().all(|loss| loss.is_nan()), "{losses:?}");
}

/// Tokenizes with a spoiled copy of a golden tokenizer, then with a healthy one.
fn tokenizer_refusal(
    spoil: impl FnOnce(&Path),
) -> (Result<ModelFaultKind, MachineFaultKind>, String) {
    let temporary = tempfile::tempdir().unwrap();
    let healthy = fixtures().join("tokenizers/llama3");
    let spoiled = copy(&healthy, &temporary.path().join("tokenizer"));
    spoil(&spoiled);
    let mut worker = Worker::start(&[temporary.path(), &healthy], &[]);
    let fault = worker.tokenize(&spoiled).unwrap_err();
    worker.tokenize(&healthy).unwrap();
    (kind(&fault), fault.to_string())
}

fn template_refusal(template: &str) -> String {
    let (kind, text) = tokenizer_refusal(|tokenizer| {
        edit_json(&tokenizer.join("tokenizer_config.json"), |config| {
            config["chat_template"] = json!(template);
        });
    });
    assert_eq!(kind, Ok(ModelFaultKind::Template), "{text}");
    text
}

#[test]
fn templates_that_never_end() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let text = template_refusal(endless);
    assert!(text.contains("too many steps"), "{text}");
    let recursive = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    let text = template_refusal(recursive);
    assert!(text.contains("nested too deeply"), "{text}");
    let nested = "(".repeat(100_000);
    template_refusal(&format!("{{{{ {nested} }}}}"));
    let long = "{% for a in range(9999) %}{{ 'a' * 9999 }}{% endfor %}";
    let text = template_refusal(long);
    assert!(text.contains("8 MiB"), "{text}");
    let twice = "{% set ns = namespace(x=[1]) %}{% for _ in range(60) %}\
        {% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for text in ["{{ ns.x }}", "{{ ns.x | tojson }}"] {
        let text = template_refusal(&format!("{twice}{text}"));
        assert!(text.contains("1 MiB"), "{text}");
    }
    let deep = "{% set ns = namespace(x=1) %}{% for _ in range(9000) %}\
        {% set ns.x = [[[ns.x]]] %}{% endfor %}{{ ns.x }}";
    let text = template_refusal(deep);
    assert!(text.contains("too deeply"), "{text}");
    template_refusal("{{ raise_exception('no thanks') }}");
    template_refusal("{% for m in messages %}");
    template_refusal(&" ".repeat(2 << 20));
}

#[test]
fn a_tokenizer_of_a_gigabyte() {
    let (kind, text) = tokenizer_refusal(|tokenizer| {
        File::create(tokenizer.join("tokenizer.json"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
    });
    assert_eq!(kind, Ok(ModelFaultKind::Tokenizer), "{text}");
}

#[test]
fn tokenizers_that_are_none() {
    for (path, value) in [
        ("/model/type", json!("Nonsense")),
        ("/model/vocab", json!({"a": -1})),
        ("/model/merges", json!(["no pair"])),
        ("/model/dropout", json!(0.5)),
        ("/pre_tokenizer/pretokenizers/0/pattern/Regex", json!("(")),
        (
            "/pre_tokenizer/pretokenizers/0/pattern/Regex",
            json!("((a{1000}){1000}){1000}"),
        ),
    ] {
        let (kind, text) = tokenizer_refusal(|tokenizer| {
            edit_json(&tokenizer.join("tokenizer.json"), |json| {
                *json.pointer_mut(path).unwrap() = value.clone();
            });
        });
        assert_eq!(
            kind,
            Ok(ModelFaultKind::Tokenizer),
            "{path} {value}: {text}"
        );
    }
}

#[test]
fn a_regex_that_backtracks_for_ever_is_bounded() {
    let temporary = tempfile::tempdir().unwrap();
    let slow = copy(
        &fixtures().join("tokenizers/llama3"),
        &temporary.path().join("slow"),
    );
    edit_json(&slow.join("tokenizer.json"), |json| {
        json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
            json!("(?=(a|a?)+$)(.+)+\\1x");
    });
    let mut worker = Worker::start(&[&slow], &[]);
    // Tokens or a refusal, but soon.
    match worker.tokenize(&slow) {
        Ok(samples) => assert_eq!(samples.len(), 3),
        Err(fault) => assert_eq!(kind(&fault), Ok(ModelFaultKind::Tokenizer)),
    }
}

//! Configurations, indices, settings and names of files that mean ill.

use serde_json::{Value, json};

use super::specimen::{CONFIG, INDEX, Specimen, TOKENIZER, WEIGHTS};

/// `config.json`.
#[expect(clippy::too_many_lines, reason = "one table")]
pub(crate) fn configurations() -> Vec<Specimen> {
    let of = Specimen::new;
    let set = |name, field: &str, value: Value| {
        Specimen::new(name).json(CONFIG, |config| config[field] = value)
    };
    let raw = |name, bytes: Vec<u8>| Specimen::new(name).file(CONFIG, bytes);
    let written = |name, field: &str, text: &str| {
        Specimen::new(name).text(CONFIG, |config| {
            let found = config.find(&format!("\"{field}\":")).unwrap();
            let (before, rest) = config.split_at(found);
            let after = &rest[rest.find(',').unwrap()..];
            format!("{before}\"{field}\":{text}{after}")
        })
    };
    vec![
        set(
            "config-a-billion-layers",
            "num_hidden_layers",
            json!(1_000_000_000),
        ),
        set("config-layers-negative", "num_hidden_layers", json!(-1)),
        set("config-no-layers", "num_hidden_layers", json!(0)),
        set("config-layers-a-fraction", "num_hidden_layers", json!(1.5)),
        set(
            "config-width-of-2-40",
            "intermediate_size",
            json!(1_u64 << 40),
        ),
        set("config-width-nothing", "hidden_size", json!(0)),
        set("config-width-of-2-63", "hidden_size", json!(i64::MAX)),
        set("config-no-heads", "num_attention_heads", json!(0)),
        set(
            "config-a-million-heads",
            "num_attention_heads",
            json!(1_000_000),
        ),
        set(
            "config-heads-that-do-not-divide",
            "num_attention_heads",
            json!(3),
        ),
        set("config-no-key-heads", "num_key_value_heads", json!(0)),
        set(
            "config-more-key-heads-than-heads",
            "num_key_value_heads",
            json!(4),
        ),
        set("config-vocabulary-negative", "vocab_size", json!(-1280)),
        set(
            "config-vocabulary-of-2-62",
            "vocab_size",
            json!(1_u64 << 62),
        ),
        set(
            "config-more-parameters-than-allowed",
            "vocab_size",
            json!(600_000_000),
        ),
        set("config-epsilon-negative", "rms_norm_eps", json!(-1.0)),
        written("config-epsilon-nan", "rms_norm_eps", "NaN"),
        written("config-epsilon-beyond-floats", "rms_norm_eps", "1e400"),
        set("config-rotary-base-nothing", "rope_theta", json!(0.0)),
        set("config-rotary-base-a-text", "rope_theta", json!("10000")),
        written("config-rotary-base-infinite", "rope_theta", "Infinity"),
        set(
            "config-rotary-factor-nothing",
            "rope_scaling",
            json!({"type": "linear", "factor": 0.0}),
        ),
        set(
            "config-rotary-factor-largest",
            "rope_scaling",
            json!({"type": "dynamic", "factor": 1e308}),
        ),
        set(
            "config-rotary-scaling-a-list",
            "rope_scaling",
            json!([1, 2]),
        ),
        set(
            "config-activation-unknown",
            "hidden_act",
            json!("os.system"),
        ),
        set(
            "config-activation-of-500-kb",
            "hidden_act",
            json!("x".repeat(500_000)),
        ),
        set(
            "config-positions-of-2-60",
            "max_position_embeddings",
            json!(1_u64 << 60),
        ),
        set(
            "config-another-architecture",
            "architectures",
            json!(["GPT2LMHeadModel"]),
        ),
        set(
            "config-code-of-its-own",
            "auto_map",
            json!({"AutoModelForCausalLM": "modeling.Evil"}),
        ),
        set(
            "config-quantized",
            "quantization_config",
            json!({"load_in_4bit": true}),
        ),
        set(
            "config-pad-beyond-the-vocabulary",
            "pad_token_id",
            json!(1_u64 << 40),
        ),
        set(
            "config-file-leads-out",
            "configuration_files",
            json!(["config.4.0.0/../../../etc/passwd.json"]),
        ),
        set(
            "config-file-absolute",
            "configuration_files",
            json!(["/etc/passwd"]),
        ),
        set(
            "config-file-missing",
            "configuration_files",
            json!(["config.4.0.0.json"]),
        ),
        set(
            "config-files-50000",
            "configuration_files",
            json!(
                (0..50_000)
                    .map(|n| format!("config.3.{n}.json"))
                    .collect::<Vec<_>>()
            ),
        ),
        set("config-tied-by-a-text", "tie_word_embeddings", json!("yes")),
        set("config-dtype-unknown", "torch_dtype", json!("float128")),
        written(
            "config-number-of-4000-digits",
            "hidden_size",
            &"9".repeat(4000),
        ),
        raw("config-empty", Vec::new()),
        raw("config-a-list", b"[]".to_vec()),
        raw("config-nested-100000-deep", b"[".repeat(100_000)),
        raw(
            "config-nested-in-an-object",
            [
                b"{\"a\":".repeat(100_000),
                b"1".to_vec(),
                b"}".repeat(100_000),
            ]
            .concat(),
        ),
        raw(
            "config-of-two-megabytes",
            [b"{".to_vec(), vec![b' '; 2 << 20], b"}".to_vec()].concat(),
        ),
        raw("config-not-text", vec![0xff; 100]),
        raw(
            "config-in-utf-16",
            "{}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        of("config-fields-twice").text(CONFIG, |config| {
            format!("{{\"hidden_size\":1099511627776,{}", &config[1..])
        }),
        of("config-missing").without(CONFIG),
    ]
}

/// The index of weights in several files.
pub(crate) fn indices() -> Vec<Specimen> {
    const SHARD: &str = "model-00001-of-00001.safetensors";
    let of = Specimen::new;
    let to = |name, shard: &str| {
        Specimen::new(name).sharded(SHARD, |index| {
            for file in index["weight_map"].as_object_mut().unwrap().values_mut() {
                *file = json!(shard);
            }
        })
    };
    let map =
        |name, map: Value| Specimen::new(name).sharded(SHARD, |index| index["weight_map"] = map);
    vec![
        of("index-in-a-folder").sharded("shards/a.safetensors", |_| ()),
        to(
            "index-names-a-file-that-is-missing",
            "model-00002-of-00002.safetensors",
        ),
        to(
            "index-leads-out",
            "../../other/repository/model.safetensors",
        ),
        to("index-absolute", "/etc/passwd"),
        to(
            "index-names-an-address",
            "https://192.0.2.1/model.safetensors",
        ),
        to("index-with-nul", "model\0.safetensors"),
        to("index-names-itself", INDEX),
        to("index-names-the-configuration", CONFIG),
        to("index-names-the-tokenizer", TOKENIZER),
        to("index-names-nothing", ""),
        to("index-names-a-name-of-10-kb", &"x".repeat(10_000)),
        map("index-a-list", json!([])),
        map("index-empty", json!({})),
        map("index-of-numbers", json!({"model.norm.weight": 1})),
        map(
            "index-of-20000-files",
            json!(
                (0..20_000)
                    .map(|n| (format!("t{n}"), json!(format!("{n}.safetensors"))))
                    .collect::<serde_json::Map<_, _>>()
            ),
        ),
        of("index-without-metadata").sharded(SHARD, |index| index["metadata"] = Value::Null),
        of("index-nested")
            .without(WEIGHTS)
            .file(INDEX, b"{\"weight_map\":".repeat(100_000)),
        of("index-not-text")
            .without(WEIGHTS)
            .file(INDEX, vec![0xff; 1000]),
        of("index-of-20-mb")
            .without(WEIGHTS)
            .sparse(INDEX, *b"{", 20 << 20),
        of("index-beside-the-weights").file(INDEX, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}"),
    ]
}

/// Settings for generation.
pub(crate) fn settings() -> Vec<Specimen> {
    const FILE: &str = "generation_config.json";
    let raw = |name, bytes: Vec<u8>| Specimen::new(name).file(FILE, bytes);
    let set = |name, value: Value| raw(name, value.to_string().into_bytes());
    vec![
        set("settings-a-list", json!([1])),
        set(
            "settings-temperature-negative",
            json!({"do_sample": true, "temperature": -1.0}),
        ),
        set(
            "settings-a-billion-beams",
            json!({"num_beams": 1_000_000_000}),
        ),
        set("settings-no-beams", json!({"num_beams": 0})),
        set(
            "settings-top-p-beyond-one",
            json!({"do_sample": true, "top_p": 1e9}),
        ),
        set(
            "settings-a-million-tokens-suppressed",
            json!({"suppress_tokens": vec![1; 100_000]}),
        ),
        set(
            "settings-more-sequences-than-beams",
            json!({"num_return_sequences": 5}),
        ),
        raw("settings-nan", b"{\"temperature\": NaN}".to_vec()),
        raw("settings-nested-50000-deep", b"[".repeat(50_000)),
        raw("settings-of-two-megabytes", vec![b' '; 2 << 20]),
        raw("settings-not-text", vec![0xfe; 10]),
    ]
}

/// Names of files, how many, and what is missing.
pub(crate) fn names() -> Vec<Specimen> {
    let of = Specimen::new;
    let named = |name, path: &str| Specimen::new(name).file(path, "escaped");
    let mut many = of("files-20000");
    for number in 0..20_000 {
        many = many.file(format!("x/{number}"), "x");
    }
    vec![
        named("file-leads-out", "../../../../tmp/zoo-escape"),
        named("file-absolute", "/tmp/zoo-escape"),
        named("file-with-nul", "a\0b"),
        named("file-with-a-line-break", "a\nb.json"),
        named("file-for-the-terminal", "\u{1b}[2J.json"),
        named("file-of-10-kb", &"x".repeat(10_000)),
        named("file-300-folders-deep", &format!("{}f", "d/".repeat(300))),
        named("file-below-a-file", "config.json/config.json"),
        named("file-that-git-owns", ".git/hooks/post-checkout"),
        named("file-called-like-another-in-capitals", "CONFIG.JSON"),
        named("file-of-code", "modeling_llama.py"),
        named(
            "template-that-leads-out",
            "additional_chat_templates/../../../tmp/zoo-escape.jinja",
        ),
        many,
        of("files-none-but-a-page")
            .without(CONFIG)
            .without(WEIGHTS)
            .without(TOKENIZER)
            .file("README.md", "# Best model"),
        of("weights-missing").without(WEIGHTS),
        of("weights-of-torch-alone")
            .without(WEIGHTS)
            .file("pytorch_model.bin", vec![0x80; 100_000]),
        of("weights-of-llama-cpp-alone")
            .without(WEIGHTS)
            .file("model.gguf", b"GGUF".repeat(1000)),
        of("tokenizer-missing").without(TOKENIZER),
    ]
}

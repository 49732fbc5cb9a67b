//! Models that can't be loaded: refused, with the reason, before their weights are fetched.

use std::fmt::Write as _;

use model::Architecture;

use crate::world::{Files, World, claim, content_hash, golden, refusal, rules};

fn put(files: &mut Files, path: &str, bytes: &[u8]) {
    files.insert(path.into(), bytes.to_vec());
}

/// Replaces the weights by an index that names one shard.
fn put_index(files: &mut Files, shard: &str) {
    files.remove("model.safetensors");
    let index = serde_json::json!({"metadata": {}, "weight_map": {"a": shard}}).to_string();
    put(files, "model.safetensors.index.json", index.as_bytes());
}

fn edit_json(files: &mut Files, path: &str, key: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_slice(&files[path]).unwrap();
    json[key] = value;
    put(files, path, &serde_json::to_vec(&json).unwrap());
}

/// Replaces a text in the header of the weights, once; its length may change.
fn edit_header(files: &mut Files, from: &str, to: &str) {
    let weights = &files["model.safetensors"];
    let length = u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
    let json = str::from_utf8(&weights[8..8 + length]).unwrap();
    assert!(json.contains(from), "{json}");
    let json = json.replacen(from, to, 1);
    let length_bytes = (json.len() as u64).to_le_bytes();
    let changed = [&length_bytes[..], json.as_bytes(), &weights[8 + length..]].concat();
    put(files, "model.safetensors", &changed);
}

type Defect = fn(&mut Files);

/// What may be wrong with a model that looks like one.
const DEFECTS: [(&str, Defect); 20] = [
    ("no config", |files| {
        drop(files.remove("config.json"));
    }),
    ("config no JSON", |files| {
        put(files, "config.json", b"{");
    }),
    ("quantized", |files| {
        edit_json(
            files,
            "config.json",
            "quantization_config",
            serde_json::json!({}),
        );
    }),
    ("llama3 rope", |files| {
        let scaling = serde_json::json!({"rope_type": "llama3", "factor": 8.0});
        edit_json(files, "config.json", "rope_scaling", scaling);
    }),
    ("wider than its weights", |files| {
        edit_json(files, "config.json", "intermediate_size", 129.into());
    }),
    ("one layer more", |files| {
        edit_json(files, "config.json", "num_hidden_layers", 5.into());
    }),
    ("no weights", |files| {
        drop(files.remove("model.safetensors"));
    }),
    ("header 2^63", |files| {
        let weights = files.get_mut("model.safetensors").unwrap();
        weights[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
    }),
    ("truncated", |files| {
        files.get_mut("model.safetensors").unwrap().pop().unwrap();
    }),
    ("five bytes", |files| {
        put(files, "model.safetensors", b"short");
    }),
    ("no format", |files| {
        edit_header(files, r#""format""#, r#""formax""#);
    }),
    ("format tf", |files| {
        edit_header(files, r#""pt""#, r#""tf""#);
    }),
    ("duplicate key", |files| {
        edit_header(files, "{", r#"{"__metadata__":{"format":"pt"},"#);
    }),
    ("shard outside", |files| {
        put_index(files, "../../etc/passwd");
    }),
    ("shard missing", |files| {
        put_index(files, "model-1.safetensors");
    }),
    ("deep shard", |files| {
        let path = "d/".repeat(300) + "x.safetensors";
        put_index(files, &path);
        put(files, &path, b"");
    }),
    ("unknown tokenizer", |files| {
        edit_json(
            files,
            "tokenizer_config.json",
            "tokenizer_class",
            "TokenizersBackend".into(),
        );
    }),
    ("no tokenizer", |files| {
        drop(files.remove("tokenizer.json"));
    }),
    ("broken tokenizer", |files| {
        put(files, "tokenizer.json", b"{\"version\":");
    }),
    ("prefix space", |files| {
        edit_json(
            files,
            "tokenizer_config.json",
            "tokenizer_class",
            "LlamaTokenizer".into(),
        );
        edit_json(
            files,
            "tokenizer_config.json",
            "add_prefix_space",
            true.into(),
        );
    }),
];

#[tokio::test]
async fn a_model_that_can_not_be_loaded_is_refused_before_its_weights_are_fetched() {
    let world = World::new().await;
    let mut reasons = String::new();
    for (what, defect) in DEFECTS {
        let mut files = golden("llama_gqa");
        defect(&mut files);
        let commit = world.publish("changed", &files);
        let claim = claim("changed", &commit, content_hash(&files));
        let (outcome, report) = world.verify(&claim, &rules(Architecture::Llama)).await;
        assert_eq!(world.store().usage().unwrap().staging, 0);
        assert!(report.bytes_fetched < 120_000, "{what}: {report:?}");
        let reason: String = refusal(outcome).chars().take(100).collect();
        writeln!(reasons, "{what}: {reason}").unwrap();
    }
    insta::assert_snapshot!(reasons, @r###"
    no config: the repository has no "config.json"
    config no JSON: config.json is not JSON: it ends in the middle at line 1 column 1
    quantized: config.json: quantized checkpoints are refused
    llama3 rope: config.json: rope_scaling must be exactly {type, factor}, found 2 fields of type "llama3"
    wider than its weights: tensor "model.layers.0.mlp.down_proj.weight" has shape [48, 128], the configuration says [48, 129]
    one layer more: 7 tensors are missing: model.layers.4.self_attn.q_proj.weight, model.layers.4.self_attn.k_proj.weigh
    no weights: the repository has neither model.safetensors nor model.safetensors.index.json
    header 2^63: model.safetensors: the header claims 9223372036854775808 bytes, more than the 8388608 allowed
    truncated: model.safetensors: the tensors end at byte 898752 of the data, the file at 898751
    five bytes: model.safetensors: the file ends within its header
    no format: model.safetensors: the header's format is missing, only "pt" and "mlx" are accepted
    format tf: model.safetensors: the header's format is "tf", only "pt" and "mlx" are accepted
    duplicate key: model.safetensors: the header can't be read: `__metadata__` appears twice at line 1 column 62
    shard outside: model.safetensors.index.json: file name "../../etc/passwd" is not allowed
    shard missing: the repository has no "model-1.safetensors"
    deep shard: model.safetensors.index.json: file name "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d
    unknown tokenizer: tokenizer class "TokenizersBackend" is not known
    no tokenizer: the files of its tokenizer (PreTrainedTokenizerFast) are missing
    broken tokenizer: tokenizer.json is not a tokenizer: it ends where a value should begin at line 1 column 11
    prefix space: its tokenizer sets add_prefix_space, which needs tokenizer.model
    "###);
}

/// How a file of JSON may be broken.
const BROKEN: [&[u8]; 8] = [
    b"",
    b"{",
    b"{\"a\": \"b",
    b"{\"a\": nil}",
    b"{\"a\": 1,}",
    b"[1, 2]",
    b"{\"a\": \"\xff\"}",
    b"{\"weight_map\": 5, \"metadata\": {}, \"tokenizer_class\": 5, \"model\": 5}",
];

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_without_the_words_of_a_library() {
    const NOT_FOR_PEOPLE: [&str; 6] = ["EOF", "ident", "invalid type", "variant", "usize", "u64"];
    let world = World::new().await;
    for path in [
        "config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
    ] {
        for bytes in BROKEN {
            let mut files = golden("llama_gqa");
            if path.contains("index") {
                files.remove("model.safetensors");
            }
            put(&mut files, path, bytes);
            let commit = world.publish("broken", &files);
            let claim = claim("broken", &commit, content_hash(&files));
            let (outcome, _) = world.verify(&claim, &rules(Architecture::Llama)).await;
            let Err(rejection) = outcome else { continue };
            let reason = rejection.to_string();
            let said = String::from_utf8_lossy(bytes);
            for word in NOT_FOR_PEOPLE {
                assert!(!reason.contains(word), "{path} of {said}: {reason}");
            }
            assert!(
                reason.contains(path) || reason.contains("okenizer"),
                "{path}: {reason}"
            );
        }
    }
}

use serde_json::{Value, json};

use super::*;
use crate::config::{Architecture, Compatibility};

fn spec() -> DecoderSpec {
    let config = json!({"vocab_size": 7, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 2, "num_attention_heads": 2});
    let json = config.to_string();
    DecoderSpec::parse(json.as_bytes(), Architecture::Llama, Compatibility::V4_40).unwrap()
}

fn header(tensors: impl IntoIterator<Item = Expected>) -> Header {
    let mut end = 0;
    let mut header = json!({"__metadata__": {"format": "pt"}});
    for Expected { name, shape } in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header[name] = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
    }
    let json = header.to_string();
    Header::parse(json.as_bytes(), 8 + json.len() as u64 + end).unwrap()
}

fn take(
    files: impl IntoIterator<Item = (&'static str, Vec<Expected>)>,
) -> Result<Inventory, InventoryError> {
    let headers = files
        .into_iter()
        .map(|(name, tensors)| (name.to_owned(), header(tensors)));
    Inventory::take(&spec(), &headers.collect())
}

#[test]
fn all_tensors_in_any_files_make_a_model() {
    let mut first: Vec<_> = spec().tensors().collect();
    let mut second = first.split_off(5);
    second.push(expected("rotary_emb.inv_freq".into(), &[2]));
    let inventory = take([("a", first), ("b", second)]).unwrap();
    assert_eq!(inventory.unknown.first, ["rotary_emb.inv_freq"]);
    assert_eq!(inventory.tensors.len(), spec().tensors().count());
    let counted: u64 = inventory
        .tensors
        .values()
        .map(|place| place.info.elements())
        .sum();
    assert_eq!(inventory.parameters, counted);
}

#[test]
fn what_is_wrong_is_named() {
    let all: Vec<_> = spec().tensors().collect();
    let missing = take([("a", all[2..].to_vec())]).unwrap_err().to_string();
    assert_eq!(
        missing,
        "2 tensors are missing: model.embed_tokens.weight, model.norm.weight"
    );
    let twice = take([("a", all.clone()), ("b", all[..1].to_vec())])
        .unwrap_err()
        .to_string();
    assert_eq!(
        twice,
        "tensor \"model.embed_tokens.weight\" is in \"a\" and in \"b\""
    );
    let mut wrong = all;
    wrong[0].shape = vec![8, 4];
    let shape = take([("a", wrong)]).unwrap_err().to_string();
    assert_eq!(
        shape,
        "tensor \"model.embed_tokens.weight\" has shape [8, 4], the configuration says [7, 4]"
    );
}

#[test]
fn an_index_names_files_inside_the_model_only() {
    let shards = |map: Value| shards_of_index(json!({"weight_map": map}).to_string().as_bytes());
    assert_eq!(
        shards(json!({"x": "b", "y": "sub/a", "z": "b"})).unwrap(),
        ["b", "sub/a"]
    );
    for name in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a\\b",
        "a\0",
        ".",
    ] {
        shards(json!({"x": name})).unwrap_err();
    }
    shards(json!({})).unwrap_err();
    shards_of_index(b"{}").unwrap_err();
}

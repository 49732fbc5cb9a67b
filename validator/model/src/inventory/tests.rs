use std::slice::from_ref;

use serde_json::{Value, json};

use super::{decoder::expected, *};
use crate::config::{Architecture, Compatibility};

fn spec() -> DecoderSpec {
    spec_of(Compatibility::V4_40, false)
}

fn spec_of(compatibility: Compatibility, tied: bool) -> DecoderSpec {
    let config = json!({"vocab_size": 7, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": tied});
    let json = config.to_string();
    DecoderSpec::parse(json.as_bytes(), Architecture::Llama, compatibility).unwrap()
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
    take_as(&spec(), files)
}

fn take_as(
    spec: &DecoderSpec,
    files: impl IntoIterator<Item = (&'static str, Vec<Expected>)>,
) -> Result<Inventory, InventoryError> {
    let headers = files
        .into_iter()
        .map(|(name, tensors)| (name.to_owned(), header(tensors)));
    Inventory::take(spec, &headers.collect())
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
    let missing = take([("a", all[1..2].to_vec())]).unwrap_err().to_string();
    assert!(
        missing.starts_with("16 tensors are missing: model.embed_tokens.weight, lm_head.weight"),
        "{missing}"
    );
    // Norms begin as ones, so that one without weights has no effect of chance.
    let norm = take([("a", [&all[..1], &all[2..]].concat())]).unwrap();
    assert_eq!(
        norm.defaulted,
        [("model.norm.weight".to_owned(), 1.0)].into()
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
    let shards = |map: Value| {
        let index = json!({"metadata": {}, "weight_map": map});
        shards_of_index(index.to_string().as_bytes())
    };
    assert_eq!(
        shards(json!({"x": "b", "y": "sub/a", "z": "b"})).unwrap(),
        ["b", "sub/a"]
    );
    for name in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\0", "."] {
        shards(json!({"x": name})).unwrap_err();
    }
    shards(json!({})).unwrap_err();
    shards_of_index(b"{}").unwrap_err();
    // Both releases write into the metadata.
    for metadata in [json!(null), json!([]), json!("x")] {
        let index = json!({"metadata": metadata, "weight_map": {"x": "a"}});
        shards_of_index(index.to_string().as_bytes()).unwrap_err();
    }
    shards_of_index(br#"{"weight_map": {"x": "a"}}"#).unwrap_err();
}

const BOTH: [Compatibility; 2] = [Compatibility::V4_40, Compatibility::Current];

/// Where the embedding and the head come from: file and name there.
fn source(inventory: &Inventory, name: &str) -> Option<(String, String)> {
    let place = inventory.tensors.get(name)?;
    Some((place.file.clone(), place.stored.clone()))
}

#[test]
fn a_tied_model_takes_the_tensor_that_its_release_takes() {
    let place = |file: &str, name: &str| Some((file.to_owned(), name.to_owned()));
    for rules in BOTH {
        let spec = spec_of(rules, true);
        let mut rest: Vec<_> = spec.tensors().collect();
        let embedding = rest.remove(0);
        let head = expected(HEAD.into(), &embedding.shape);
        let with = |more: &[Expected]| [&rest[..], more].concat();
        let both = take_as(&spec, [("a", with(&[embedding.clone(), head.clone()]))]).unwrap();
        let late = [("a", with(from_ref(&head))), ("b", vec![embedding.clone()])];
        let late = take_as(&spec, late).unwrap();
        let only = take_as(&spec, [("a", with(from_ref(&head)))]).unwrap();
        assert_eq!(source(&only, EMBEDDING), place("a", HEAD), "{rules:?}");
        assert_eq!(source(&only, HEAD), None);
        assert!(!only.untied);
        if rules == Compatibility::V4_40 {
            assert_eq!(source(&both, EMBEDDING), place("a", HEAD));
            assert_eq!(source(&late, EMBEDDING), place("b", EMBEDDING));
            assert!(!both.untied && !late.untied);
        } else {
            assert_eq!(source(&both, EMBEDDING), place("a", EMBEDDING));
            assert_eq!(source(&both, HEAD), place("a", HEAD));
            assert!(both.untied && late.untied);
            let count = |digests: [u32; 2]| {
                both.parameters_if_untied(|name| Some(digests[usize::from(name == HEAD)]))
            };
            assert_eq!(count([1, 1]), spec.parameters());
            assert_eq!(count([1, 2]), spec.parameters() + 28);
        }
        let wrong = expected(HEAD.into(), &[8, 4]);
        take_as(&spec, [("a", with(&[embedding, wrong]))]).unwrap_err();
    }
}

#[test]
fn names_may_lack_the_model_where_the_release_says_so() {
    let bare = |spec: &DecoderSpec| -> Vec<Expected> {
        let names = spec.tensors().map(|tensor| {
            let name = tensor.name.strip_prefix("model.").unwrap_or(&tensor.name);
            expected(name.to_owned(), &tensor.shape)
        });
        names.collect()
    };
    for rules in BOTH {
        let tied = spec_of(rules, true);
        take_as(&tied, [("a", bare(&tied))]).unwrap();
        let untied = spec_of(rules, false);
        let taken = take_as(&untied, [("a", bare(&untied))]);
        if rules == Compatibility::V4_40 {
            assert_eq!(taken, Err(InventoryError::HeadWithoutModel));
        } else {
            taken.unwrap();
        }
        // Old names of norms, and one name spelled twice.
        let mut old: Vec<_> = untied.tensors().collect();
        old[1].name = "model.norm.gamma".into();
        let twice = expected("norm.weight".into(), &old[1].shape);
        let renamed = take_as(&untied, [("a", old.clone())]).unwrap();
        assert_eq!(
            renamed.defaulted.get("model.norm.weight"),
            (rules == Compatibility::Current).then_some(&1.0)
        );
        old[1].name = "model.norm.weight".into();
        old.push(twice);
        let taken = take_as(&untied, [("a", old)]).unwrap();
        assert_eq!(
            taken.tensors["model.norm.weight"].stored,
            "model.norm.weight"
        );
    }
}

#[test]
fn of_a_tensor_in_two_files_the_later_counts() {
    for rules in BOTH {
        let spec = spec_of(rules, false);
        let all: Vec<_> = spec.tensors().collect();
        let again = vec![all[3].clone()];
        let taken = take_as(&spec, [("a", all.clone()), ("b", again)]).unwrap();
        assert_eq!(taken.tensors[&all[3].name].file, "b");
        let misshapen = vec![expected(all[3].name.clone(), &[1])];
        let taken = take_as(&spec, [("a", misshapen), ("b", all.clone())]);
        assert_eq!(taken.is_ok(), rules == Compatibility::Current);
    }
}

#[test]
fn the_format_is_asked_for_by_4_40_only() {
    for (metadata, named) in [
        (json!({}), false),
        (json!({"__metadata__": {}}), false),
        (json!({"__metadata__": {"format": "np"}}), false),
        (json!({"__metadata__": {"format": "mlx"}}), true),
    ] {
        for rules in BOTH {
            let spec = spec_of(rules, false);
            let mut header = metadata.clone();
            let mut end = 0;
            for Expected { name, shape } in spec.tensors() {
                let start = end;
                end += shape.iter().product::<u64>();
                header[name] =
                    json!({"dtype": "F8_E4M3", "shape": shape, "data_offsets": [start, end]});
            }
            let json = header.to_string();
            let header = Header::parse(json.as_bytes(), 8 + json.len() as u64 + end).unwrap();
            let taken = Inventory::take(&spec, &[("a".to_owned(), header)].into());
            assert_eq!(
                taken.is_ok(),
                named || rules == Compatibility::Current,
                "{metadata}"
            );
        }
    }
}

#[test]
fn projections_that_share_a_tensor_are_split() {
    let config = json!({"vocab_size": 7, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0});
    let json = config.to_string();
    let spec =
        DecoderSpec::parse(json.as_bytes(), Architecture::Phi3, Compatibility::Current).unwrap();
    let stored: Vec<_> = spec.stored_tensors().map(|stored| stored.whole).collect();
    let taken = take_as(&spec, [("a", stored)]).unwrap();
    let bytes = |name: &str| {
        let place = &taken.tensors[&format!("model.layers.0.{name}.weight")];
        (
            place.stored.clone(),
            place.info.shape.clone(),
            place.info.elements(),
        )
    };
    let qkv = "model.layers.0.self_attn.qkv_proj.weight".to_owned();
    assert_eq!(bytes("self_attn.q_proj"), (qkv.clone(), vec![4, 4], 16));
    assert_eq!(bytes("self_attn.v_proj"), (qkv, vec![2, 4], 8));
    let gates = "model.layers.0.mlp.gate_up_proj.weight".to_owned();
    assert_eq!(bytes("mlp.up_proj"), (gates, vec![6, 4], 24));
    assert_eq!(taken.tensors.len(), spec.tensors().count());
}

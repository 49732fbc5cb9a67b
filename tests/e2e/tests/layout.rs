//! Which files of a model count: the same for the hub's listing, by which a model is judged before
//! it is fetched, and for the folder it is loaded from.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, path::Path};

use engine::folder::Folder;
use hub::{ListedFile, Listing};
use model::{Layout, layout::LayoutError};
use models::manifest::{Contents, Missing, layout_of};
use proptest::{collection::btree_map, prelude::*};
use shared::file::write_atomic;

/// What both sides make of the files: the layout, or the words that refuse it.
type Outcome = Result<Layout, String>;

fn of_listing(files: &BTreeMap<String, String>) -> Outcome {
    let listed = |(path, content): (&String, &String)| {
        let listed = ListedFile {
            size: Some(content.len() as u64),
            blob_id: None,
            sha256: None,
        };
        (path.clone(), listed)
    };
    let listing = Listing {
        commit: "0".repeat(40),
        files: files.iter().map(listed).collect(),
    };
    let mut contents = Contents::new();
    loop {
        match layout_of(&listing, &contents) {
            Ok(layout) => return Ok(layout),
            Err(LayoutError::Read(Missing::Content(path))) => {
                let content = files[&path].clone().into();
                assert_eq!(contents.insert(path, content), None, "asked for twice");
            }
            Err(LayoutError::Read(Missing::Never(reason))) => return Err(reason),
            Err(LayoutError::Config(defect) | LayoutError::Weights(defect)) => {
                return Err(defect.to_string());
            }
        }
    }
}

fn of_folder(folder: &Path, files: &BTreeMap<String, String>) -> Outcome {
    for (path, content) in files {
        write_atomic(&folder.join(path), content.as_bytes()).unwrap();
    }
    let folder = Folder::open(folder).unwrap();
    Layout::of(&folder).map_err(|error| match error {
        LayoutError::Read(fault) => fault.to_string(),
        LayoutError::Config(defect) | LayoutError::Weights(defect) => defect.to_string(),
    })
}

/// A path that may matter, or looks as if it might.
fn path() -> impl Strategy<Value = String> {
    let names = [
        "config.json",
        "config.4.0.0.json",
        "config.4.39.0.json",
        "config.4.41.0.json",
        "old/config.4.1.0.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "a.safetensors",
        "d/b.safetensors",
    ];
    proptest::sample::select(names.to_vec()).prop_map(ToOwned::to_owned)
}

/// A configuration or an index, whole or not; names may be missing or lead elsewhere.
fn content() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        8 => path(),
        1 => Just("../config.4.2.0.json".to_owned()),
        1 => Just("config.x.json".to_owned()),
    ];
    let names = proptest::collection::vec(name, 0..4);
    prop_oneof![
        4 => names.clone().prop_map(|names| {
            serde_json::json!({ "configuration_files": names }).to_string()
        }),
        4 => names.prop_map(|names| {
            let map: BTreeMap<String, String> =
                names.into_iter().enumerate().map(|(n, name)| (n.to_string(), name)).collect();
            serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()
        }),
        1 => Just("{}".to_owned()),
        1 => Just(r#"{"configuration_files": 7}"#.to_owned()),
        1 => Just("[]".to_owned()),
        1 => Just("{".to_owned()),
    ]
}

proptest! {
    #[test]
    fn what_is_judged_is_what_is_loaded(mut files in btree_map(path(), content(), 0..9), usual in 0..4) {
        // Most models have a configuration in order.
        if usual > 0 {
            files.insert("config.json".into(), "{}".into());
        }
        let folder = tempfile::tempdir().unwrap();
        let (listed, loaded) = (of_listing(&files), of_folder(folder.path(), &files));
        prop_assert_eq!(listed, loaded, "{:?}", files);
    }
}

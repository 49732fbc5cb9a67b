//! Content hashes against those of the Python validator.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use model::ContentHash;
use proptest::prelude::*;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("fixtures/hashes.json")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
fn lay_out(root: &Path, files: &Value) {
    for file in files.as_array().unwrap() {
        let path = root.join(file[0].as_str().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &file[1] {
            Value::String(text) => fs::write(path, text).unwrap(),
            spec if spec["symlink"].is_string() => {
                symlink(spec["symlink"].as_str().unwrap(), path).unwrap();
            }
            spec if spec["dir"].is_boolean() => fs::create_dir(path).unwrap(),
            spec => {
                let times = usize::try_from(spec["repeat"].as_u64().unwrap()).unwrap();
                fs::write(path, (0..=255_u8).collect::<Vec<_>>().repeat(times)).unwrap();
            }
        }
    }
}

#[test]
fn directories_hash_as_in_python() {
    for case in golden()["directories"].as_array().unwrap() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("model");
        if case["files"].is_array() {
            fs::create_dir(&root).unwrap();
            lay_out(&root, &case["files"]);
        }
        let hash = ContentHash::of_directory(&root).unwrap();
        assert_eq!(
            hash.to_string(),
            case["hash"].as_str().unwrap(),
            "{}",
            case["name"]
        );
        if let Some(hotkey) = case["hotkey"].as_str() {
            let bound = hash.bound_to(hotkey).to_string();
            assert_eq!(
                bound,
                case["hash_with_hotkey"].as_str().unwrap(),
                "{}",
                case["name"]
            );
        }
    }
}

#[test]
fn lists_of_digests_hash_like_directories() {
    for (name, case) in golden()["models"].as_object().unwrap() {
        let digests: BTreeMap<String, String> =
            serde_json::from_value(case["files"].clone()).unwrap();
        let files = digests.into_iter().rev().map(|(path, digest)| {
            (
                path,
                BASE64_STANDARD.decode(digest).unwrap().try_into().unwrap(),
            )
        });
        let hash = ContentHash::of_files(files);
        assert_eq!(hash.to_string(), case["hash"].as_str().unwrap(), "{name}");
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
}

#[test]
fn pipes_and_broken_links_are_errors_not_waits() {
    let temporary = tempfile::tempdir().unwrap();
    symlink("nowhere", temporary.path().join("broken")).unwrap();
    assert!(ContentHash::of_directory(temporary.path()).is_err());
    fs::remove_file(temporary.path().join("broken")).unwrap();
    symlink("/dev/zero", temporary.path().join("endless")).unwrap();
    let error = ContentHash::of_directory(temporary.path()).unwrap_err();
    assert!(
        error.to_string().ends_with("endless is not a plain file"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The order computed from paths is the order of a real directory walk.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "fixtures need no atomic writes")]
    fn paths_sort_as_directories_walk(
        paths in prop::collection::btree_set("[abAB.é]{1,3}y(/[ab.]{1,2}x){0,2}", 1..12),
    ) {
        let temporary = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for path in paths {
            // A name can't be a file and a directory at once, and "." and ".." are taken.
            let file = temporary.path().join(&path);
            if fs::create_dir_all(file.parent().unwrap()).is_ok() && fs::write(&file, &path).is_ok()
            {
                files.push((path, model::hash::file_digest(&file).unwrap()));
            }
        }
        prop_assert_eq!(
            ContentHash::of_files(files),
            ContentHash::of_directory(temporary.path()).unwrap()
        );
    }
}

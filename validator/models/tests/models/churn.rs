//! A week of new commitments on a small disk: the quota holds, what is needed stays.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::ContentHash;
use models::{
    Digest, Store,
    store::{Depth, FileRecord, ModelRecord, Need, StoreError, StoreLimits},
};
use proptest::prelude::*;

const QUOTA: u64 = 40_000;

/// A folder in memory where there is one: a thousand models are many waits for a disk.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Adds a model of about `size` bytes as a download would.
fn add(store: &Store, number: u64, size: u64) -> Result<ContentHash, StoreError> {
    let weights = vec![number as u8; size as usize];
    let weights = [number.to_le_bytes().to_vec(), weights].concat();
    let digest = Digest::of(&weights);
    let needs = [(digest.to_string(), weights.len() as u64)];
    let _room = store.reserve(&needs)?;
    let mut staging = store.stage(&digest.to_string())?;
    staging.append(&weights)?;
    staging.commit(&digest)?;
    let config = Digest::of(b"{}");
    store.put(b"{}")?;
    let files = vec![
        FileRecord {
            path: "config.json".into(),
            size: 2,
            sha256: config,
        },
        FileRecord {
            path: "model.safetensors".into(),
            size: weights.len() as u64,
            sha256: digest,
        },
    ];
    let content_hash = ContentHash::of_files(files.iter().map(|file| (&file.path, file.sha256.0)));
    store.add_model(&ModelRecord {
        format: models::store::RECORD_FORMAT,
        content_hash,
        files,
        repository: "a/b".into(),
        commit: String::new(),
        norms: Vec::new(),
        tensors: BTreeMap::new(),
        added: Timestamp::UNIX_EPOCH,
    })?;
    Ok(content_hash)
}

#[test]
fn a_thousand_commitments_stay_within_the_quota() {
    let dir = scratch();
    let limits = StoreLimits {
        max_disk: Some(QUOTA),
        min_free: 0,
    };
    let store = Store::open(dir.path(), limits).unwrap();
    let mut pool: Vec<ContentHash> = Vec::new();
    let mut pinned = None;
    for number in 0..1000 {
        let size = 1000 + (number * 7919) % 4000;
        let hash = add(&store, number, size).unwrap();
        if number % 3 == 0 {
            pool.push(hash);
        }
        if pool.len() > 5 {
            pool.remove(0);
        }
        if number % 50 == 0 {
            pinned = store.pin(&hash).unwrap();
        }
        let need = |evaluated, weight| Need {
            hotkeys: Vec::new(),
            evaluated,
            weight,
        };
        let mut needs: BTreeMap<_, _> = pool.iter().map(|hash| (*hash, need(true, 0.1))).collect();
        needs.entry(hash).or_insert_with(|| need(false, 0.0));
        store.set_needs(&needs).unwrap();
        let usage = store.usage().unwrap();
        assert!(usage.blobs + usage.staging <= QUOTA, "{number}: {usage:?}");
        for hash in &pool {
            assert!(
                store.model(hash).unwrap().is_some(),
                "{number}: a needed model went"
            );
        }
        let pin = pinned.as_ref().unwrap().model();
        assert!(
            pin.dir.join("model.safetensors").is_file(),
            "{number}: a pinned model went"
        );
    }
    assert!(store.models().unwrap().len() > 6);
    assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), []);
}

#[test]
fn what_does_not_fit_beside_the_needed_is_put_off() {
    let dir = scratch();
    let limits = StoreLimits {
        max_disk: Some(10_000),
        min_free: 0,
    };
    let store = Store::open(dir.path(), limits).unwrap();
    let needed = add(&store, 1, 6000).unwrap();
    let need = Need {
        hotkeys: Vec::new(),
        evaluated: true,
        weight: 0.0,
    };
    store.set_needs(&BTreeMap::from([(needed, need)])).unwrap();
    assert!(matches!(add(&store, 2, 6000), Err(StoreError::Full { .. })));
    assert!(store.model(&needed).unwrap().is_some());
    add(&store, 3, 3000).unwrap();
    let never = StoreLimits {
        max_disk: None,
        min_free: u64::MAX,
    };
    let full = Store::open(dir.path(), never).unwrap();
    let Err(StoreError::Full { reason, .. }) = add(&full, 4, 10) else {
        panic!("it fits")
    };
    assert!(reason.contains("have to stay free"), "{reason}");
}

#[test]
fn the_least_useful_goes_first() {
    let dir = scratch();
    let limits = StoreLimits {
        max_disk: Some(10_000),
        min_free: 0,
    };
    let store = Store::open(dir.path(), limits).unwrap();
    let models: Vec<_> = (0..3)
        .map(|number| add(&store, number, 3000).unwrap())
        .collect();
    let need = |weight| Need {
        hotkeys: Vec::new(),
        evaluated: false,
        weight,
    };
    store
        .set_needs(&BTreeMap::from([
            (models[0], need(0.2)),
            (models[2], need(0.1)),
        ]))
        .unwrap();
    let left = |store: &Store| -> BTreeSet<ContentHash> {
        store
            .models()
            .unwrap()
            .into_iter()
            .map(|model| model.record.content_hash)
            .collect()
    };
    let fourth = add(&store, 4, 3000).unwrap();
    assert_eq!(left(&store), BTreeSet::from([models[0], models[2], fourth]));
    store.remove_model(&fourth).unwrap();
    let fifth = add(&store, 5, 6000).unwrap();
    assert_eq!(left(&store), BTreeSet::from([models[0], fifth]));
}

#[test]
fn what_a_crash_leaves_is_cleared_at_the_next_start() {
    let dir = scratch();
    let open = || Store::open(dir.path(), StoreLimits::default()).unwrap();
    let [whole, no_record, no_folder] = [1, 2, 3].map(|number| add(&open(), number, 100).unwrap());
    let folder = |hash| open().model(&hash).unwrap().unwrap().dir;
    let (lost, kept) = (folder(no_record), folder(no_folder));
    std::fs::remove_file(lost.with_extension("json")).unwrap();
    std::fs::remove_dir_all(&kept).unwrap();
    for rubbish in ["staging/links-1", "staging/removed-2"] {
        std::fs::create_dir(dir.path().join(rubbish)).unwrap();
    }
    for rubbish in [
        "staging/.tmpx",
        "models/.tmpx",
        "small/.tmpx",
        ".tmpx",
        "staging/a.part",
    ] {
        std::fs::File::create(dir.path().join(rubbish)).unwrap();
    }
    let store = open();
    assert!(!lost.exists() && !kept.with_extension("json").exists());
    let left: Vec<_> = store
        .models()
        .unwrap()
        .into_iter()
        .map(|m| m.record.content_hash)
        .collect();
    assert_eq!(left, [whole]);
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(dir.path().join(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("staging"), ["a.part"], "a download is taken up again");
    assert_eq!(names("small"), [""; 0]);
    assert!(!dir.path().join(".tmpx").exists() && !dir.path().join("models/.tmpx").exists());
    // While somebody else is at work, nothing is cleared.
    std::fs::create_dir(dir.path().join("staging/links-3")).unwrap();
    let beside = open();
    assert!(dir.path().join("staging/links-3").is_dir());
    drop((store, beside));
    open();
    assert!(!dir.path().join("staging/links-3").exists());
}

#[test]
fn damage_is_found_and_removed() {
    let dir = scratch();
    let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
    let [shortened, flipped, sound] = [1, 2, 3].map(|number| add(&store, number, 100).unwrap());
    let weights = |hash| {
        let path = store
            .model(&hash)
            .unwrap()
            .unwrap()
            .dir
            .join("model.safetensors");
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        std::fs::set_permissions(&path, permissions).unwrap();
        std::fs::OpenOptions::new().write(true).open(path).unwrap()
    };
    weights(shortened).set_len(5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&weights(flipped), b"X", 50).unwrap();
    assert!(store.model(&shortened).unwrap().is_none());
    assert!(store.model(&flipped).unwrap().is_some());
    let damage = store.check(Depth::Bytes, |_| {}).unwrap();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(store.model(&flipped).unwrap().is_none());
    assert!(store.model(&sound).unwrap().is_some());
    assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), []);
    let [_, again] = [1, 2].map(|number| add(&store, number, 100).unwrap());
    assert_eq!(again, flipped);
    assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_keeps_quota_and_needs(history in proptest::collection::vec((0_u64..12, 500_u64..4000, any::<bool>()), 1..30)) {
        let dir = scratch();
        let limits = StoreLimits { max_disk: Some(9000), min_free: 0 };
        let store = Store::open(dir.path(), limits).unwrap();
        let mut needed = None;
        for (number, size, keep) in history {
            match add(&store, number, size) {
                Ok(hash) if keep => {
                    let need = Need { hotkeys: Vec::new(), evaluated: true, weight: 0.0 };
                    store.set_needs(&BTreeMap::from([(hash, need)])).unwrap();
                    needed = Some(hash);
                }
                Ok(_) => {}
                Err(StoreError::Full { .. }) => prop_assert!(needed.is_some()),
                Err(other) => panic!("{other}"),
            }
            let usage = store.usage().unwrap();
            prop_assert!(usage.blobs + usage.staging <= 9000);
            if let Some(hash) = needed {
                prop_assert!(store.model(&hash).unwrap().is_some());
            }
        }
    }
}

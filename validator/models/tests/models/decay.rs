//! A disk that decays: our copies are not evidence against a miner, and are fetched again.

use std::{
    fs::{File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use model::{Architecture, ContentHash};
use models::{Event, Store, Tracker, store::Depth};

use crate::{
    sync::{commitment, round, sync},
    world::{World, claim, content_hash, golden, rules},
};

/// A bit of a stored file flips: our copy is judged damaged, even while it is in use, and fetched
/// again though nothing has changed on the chain; a sound copy stays.
#[tokio::test]
async fn a_copy_that_decayed_is_fetched_again() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let hash = content_hash(&files);
    let commitments = [commitment(1, 100, "good", &commit, hash)];
    let sync = sync(&world, Tracker::default());
    assert_eq!(round(&sync, &commitments).await.len(), 1);
    let store = world.store();
    assert_eq!(store.judge_copy(&hash).unwrap(), None);
    for name in ["model.safetensors", "tokenizer.json"] {
        let pin = store.pin(&hash).unwrap().unwrap();
        let path = pin.model().dir.join(name);
        flip(&path);
        let problem = store.judge_copy(&hash).unwrap().unwrap();
        assert!(problem.contains(name), "{problem}");
        assert!(store.is_damaged(&hash) && store.model(&hash).unwrap().is_none());
        drop(pin);

        let events = round(&sync, &commitments).await;
        assert!(matches!(&events[..], [Event::Verified(_)]), "{events:?}");
        assert!(!store.is_damaged(&hash));
        assert_eq!(store.judge_copy(&hash).unwrap(), None, "{name}");
        assert_eq!(round(&sync, &commitments).await.len(), 0);
    }
}

/// Flips a bit in the middle of a file, in place: blob and links are one file.
pub(crate) fn flip(path: &std::path::Path) {
    flip_at(path, std::fs::metadata(path).unwrap().len() as usize / 2);
}

fn flip_at(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
}

/// A second commitment to a model in the store is judged by our copy. Where that has decayed, its
/// miner must not be refused: not for the header, not for a norm, neither of the weights nor of
/// the record.
#[tokio::test]
async fn our_own_decayed_copy_refuses_no_model() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let hash = content_hash(&files);
    let claim = claim("good", &commit, hash);
    let rules = rules(Architecture::Llama);
    let (first, _) = world.verify(&claim, &rules).await;
    let first = first.unwrap();
    let store = world.store();
    let weights = first.dir.join("model.safetensors");
    // In the JSON of the header, and in its length.
    for at in [40, 3] {
        flip_at(&weights, at);
        let (again, report) = world.verify(&claim, &rules).await;
        assert!(again.is_ok(), "byte {at}: {report:?}");
        assert_eq!(store.judge_copy(&hash).unwrap(), None);
    }
    let record = store
        .root()
        .join("models")
        .join(first.dir.file_name().unwrap());
    let record = record.with_extension("json");
    let text = std::fs::read_to_string(&record).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut damaged = json.clone();
    for norm in damaged["norms"].as_array_mut().unwrap() {
        norm[2] = 1e9.into();
    }
    shared::file::write_atomic(&record, damaged.to_string().as_bytes()).unwrap();
    let (again, report) = world.verify(&claim, &rules).await;
    assert!(again.is_ok(), "{report:?}");
    let mended: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let norms = |json: &serde_json::Value| -> Vec<f64> {
        let rows = json["norms"].as_array().unwrap().iter();
        rows.map(|row| row[2].as_f64().unwrap()).collect()
    };
    let mut pairs = norms(&mended).into_iter().zip(norms(&json));
    assert!(pairs.all(|(now, before)| (now - before).abs() < 1e-9));

    // The record is gone and a norm of the stored weights has exploded: the blob is not evidence.
    std::fs::remove_file(&record).unwrap();
    let length = u64::from_le_bytes(*std::fs::read(&weights).unwrap().first_chunk().unwrap());
    for tensor in 0..6 {
        // The exponent of a number in each of some tensors.
        flip_at(&weights, length as usize + 8 + 4096 * tensor + 3);
    }
    let (again, report) = world.verify(&claim, &rules).await;
    assert!(again.is_ok(), "{report:?}");
    assert_eq!(store.judge_copy(&hash).unwrap(), None);
}

/// What finds out that a model is damaged.
type Look = fn(&Store, &ContentHash);

/// A file of a model is gone from our disk, and it is not a member of a pool: it is fetched again.
#[tokio::test]
async fn a_model_that_is_not_whole_is_marked_before_it_is_removed() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let hash = content_hash(&files);
    let commitments = [commitment(1, 100, "good", &commit, hash)];
    let sync = sync(&world, Tracker::default());
    assert_eq!(round(&sync, &commitments).await.len(), 1);
    let store = world.store();
    let dir = store.model(&hash).unwrap().unwrap().dir;
    let spoil: [(&str, Look); 3] = [
        ("a look at the model", |store, hash| {
            assert!(store.model(hash).unwrap().is_none());
        }),
        ("a worker's find", |store, hash| {
            assert!(store.judge_copy(hash).unwrap().is_some());
        }),
        ("a check of the store", |store, _| {
            assert!(!store.check(Depth::Sizes, |_| ()).unwrap().is_empty());
        }),
    ];
    for (what, look) in spoil {
        let name = "model.safetensors";
        let sha256 = models::Digest::of(&files[name]);
        let blob = store.root().join("blobs").join(sha256.to_string());
        std::fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
        File::options()
            .write(true)
            .open(&blob)
            .unwrap()
            .set_len(9)
            .unwrap();
        if what == "a check of the store" {
            std::fs::remove_file(&blob).unwrap();
        }
        look(&store, &hash);
        assert!(store.is_damaged(&hash), "{what}");
        let events = round(&sync, &commitments).await;
        assert!(
            matches!(&events[..], [Event::Verified(_)]),
            "{what}: {events:?}"
        );
        assert!(!store.is_damaged(&hash));
        assert_eq!(store.judge_copy(&hash).unwrap(), None, "{what}");
        assert!(dir.is_dir());
    }
}

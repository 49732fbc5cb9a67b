//! The fixed tokenizers of competitions: fetched once, trusted, not followed.

use localnet::http::{Fault, Rule};
use model::{Compatibility, ContentHash};
use models::Tokenizers;
use subnet::{FaultKind, FixedTokenizer};

use crate::{
    decay::flip,
    world::{Files, World, fixtures},
};

#[tokio::test]
async fn a_fixed_tokenizer_is_fetched_once_and_outlives_the_hub() {
    let world = World::new().await;
    let mut files = Files::new();
    for entry in std::fs::read_dir(fixtures().join("tokenizers/llama3")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, std::fs::read(path).unwrap());
    }
    files.insert("README.md".into(), b"not fetched".to_vec());
    files.insert("model.safetensors".into(), vec![0; 1000]);
    world.publish("tokenizer", &files);
    let verifier = world.verifier();
    let store = verifier.store.unwrap();
    let tokenizers = Tokenizers {
        hub: Some(&verifier.hub),
        store: &store,
        compatibility: Compatibility::V4_40,
    };
    let wanted = fixed("miner/tokenizer");
    let fetch = async || Ok::<_, subnet::Fault>(tokenizers.find(&wanted, None).await?.dir);
    let first = fetch().await.unwrap();
    assert!(first.join("tokenizer.json").is_file());
    assert!(!first.join("README.md").exists() && !first.join("model.safetensors").exists());
    world.server.api.traffic.clear();
    assert_eq!(fetch().await.unwrap(), first);
    assert_eq!(world.server.api.traffic.requests().len(), 1);
    world
        .server
        .faults()
        .set(vec![Rule::always(Fault::ServerError)]);
    assert_eq!(fetch().await.unwrap(), first);
    world.server.faults().clear();
    let missing = tokenizers.find(&fixed("miner/none"), None).await;
    assert_eq!(missing.unwrap_err().kind, FaultKind::Outside);
    let nonsense = tokenizers.find(&fixed("../x"), None).await;
    assert_eq!(nonsense.unwrap_err().kind, FaultKind::Config);
}

fn fixed(repository: &str) -> FixedTokenizer {
    FixedTokenizer {
        repository: repository.to_owned(),
        revision: None,
        content_hash: None,
    }
}

fn tokenizer_files() -> Files {
    ["tokenizer.json", "tokenizer_config.json"]
        .map(|name| {
            let path = fixtures().join("tokenizers/llama3").join(name);
            (name.to_owned(), std::fs::read(path).unwrap())
        })
        .into()
}

/// A push to the repository of a fixed tokenizer changes nothing but what is told, be it good or
/// nonsense; a pin in the subnet file changes it, if it can be had.
#[tokio::test]
async fn a_fixed_tokenizer_that_worked_is_kept_whatever_is_pushed() {
    let world = World::new().await;
    let mut files = tokenizer_files();
    let first = world.publish("tokenizer", &files);
    let verifier = world.verifier();
    let store = verifier.store.unwrap();
    let tokenizers = Tokenizers {
        hub: Some(&verifier.hub),
        store: &store,
        compatibility: Compatibility::V4_40,
    };
    let wanted = fixed("miner/tokenizer");
    let trusted = tokenizers.find(&wanted, None).await.unwrap();
    assert_eq!(trusted.pin.revision, first);
    assert_eq!(trusted.problem, None);
    let find =
        async |wanted: &FixedTokenizer| tokenizers.find(wanted, Some(&trusted.pin)).await.unwrap();

    // Another commit with the same tokenizer is not news.
    files.insert("README.md".into(), b"words".to_vec());
    world.publish("tokenizer", &files);
    assert_eq!(find(&wanted).await, trusted);

    files.insert("added_tokens.json".into(), b"{}".to_vec());
    let second = world.publish("tokenizer", &files);
    let found = find(&wanted).await;
    assert_eq!((&found.dir, &found.pin), (&trusted.dir, &trusted.pin));
    let problem = found.problem.unwrap();
    assert!(
        problem.contains(&second) && problem.contains(&first),
        "{problem}"
    );

    let nonsense = [("tokenizer_config.json".to_owned(), b"{".to_vec())].into();
    let third = world.publish("tokenizer", &nonsense);
    let found = find(&wanted).await;
    assert_eq!(found.dir, trusted.dir);
    assert!(found.problem.unwrap().contains(&third));
    // Nothing is trusted yet, and what the release before fetched is here.
    let fresh = tokenizers.find(&wanted, None).await.unwrap();
    assert_eq!(fresh, trusted);

    // The subnet file pins another.
    let pinned = |revision: &str, content_hash| FixedTokenizer {
        revision: Some(revision.to_owned()),
        content_hash,
        ..wanted.clone()
    };
    let found = find(&pinned(&second, None)).await;
    assert_eq!((&found.pin.revision, found.problem), (&second, None));
    let right = Some(found.pin.content);
    assert_eq!(find(&pinned(&second, right)).await.pin.revision, second);
    let wrong = Some(trusted.pin.content);
    for (revision, content) in [(&second, wrong), (&third, None), (&"0".repeat(40), None)] {
        let found = find(&pinned(revision, content)).await;
        assert_eq!(found.dir, trusted.dir, "what worked stays in use");
        assert!(found.problem.unwrap().contains(revision.as_str()));
        let alone = tokenizers.find(&pinned(revision, content), None).await;
        assert!(alone.is_err(), "nothing was trusted");
    }
}

/// A bit of the stored fixed tokenizer flips: it is fetched again, with its damaged blob.
#[tokio::test]
async fn a_fixed_tokenizer_that_decayed_is_fetched_again() {
    let world = World::new().await;
    let files = tokenizer_files();
    world.publish("tokenizer", &files);
    let verifier = world.verifier();
    let store = verifier.store.unwrap();
    let mut tokenizers = Tokenizers {
        hub: Some(&verifier.hub),
        store: &store,
        compatibility: Compatibility::V4_40,
    };
    let wanted = fixed("miner/tokenizer");
    let trusted = tokenizers.find(&wanted, None).await.unwrap();
    for name in files.keys() {
        flip(&trusted.dir.join(name));
        // Without the hub there is none: it must not be used as it is.
        tokenizers.hub = None;
        if name == "tokenizer.json" {
            assert!(tokenizers.find(&wanted, Some(&trusted.pin)).await.is_err());
        }
        tokenizers.hub = Some(&verifier.hub);
        let found = tokenizers.find(&wanted, Some(&trusted.pin)).await.unwrap();
        assert_eq!(found, trusted);
        assert_eq!(
            ContentHash::of_directory(&found.dir).unwrap(),
            trusted.pin.content
        );
        assert_eq!(&std::fs::read(found.dir.join(name)).unwrap(), &files[name]);
    }
}

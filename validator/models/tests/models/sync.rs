//! Keeping up with the chain: what is looked at, what is told, what is asked of the hub.

use std::{collections::BTreeSet, time::Duration};

use localnet::http::{Fault, Rule};
use model::Dtype;
use models::{Event, Sync, SyncOptions, Tracker, tracker::Outcome};
use subnet::{Commitment, FaultKind, ModelId, Parameters, Uid};
use tokio::sync::mpsc;

use crate::world::{Files, World, content_hash, golden, hotkey};

const OPTIONS: SyncOptions = SyncOptions {
    update_delay: Duration::from_secs(300),
    grace: Duration::from_secs(7200),
    min_block: 100,
    dtype: Dtype::Bf16,
};

pub(crate) fn commitment(
    number: u8,
    block: u64,
    name: &str,
    commit: &str,
    hash: impl ToString,
) -> Commitment {
    let model_id: ModelId = format!("miner:{name}:{commit}:{}:l3", hash.to_string())
        .parse()
        .unwrap();
    Commitment {
        hotkey: hotkey(number),
        uid: Uid(number.into()),
        block,
        model_id,
    }
}

pub(crate) fn sync(world: &World, tracker: Tracker) -> Sync {
    Sync::new(world.verifier(), Parameters::embedded(), OPTIONS, tracker)
}

pub(crate) async fn round(sync: &Sync, commitments: &[Commitment]) -> Vec<Event> {
    let (sender, mut receiver) = mpsc::channel(64);
    sync.round(commitments, 1_000_000, &sender).await.unwrap();
    drop(sender);
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn each_commitment_is_looked_at_once() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let hash = content_hash(&files);
    let commitments = [
        commitment(1, 100, "good", &commit, hash),
        commitment(2, 200, "good", &commit, content_hash(&Files::new())),
        commitment(3, 300, "absent", &commit, hash),
        commitment(4, 99, "good", &commit, hash),
        Commitment {
            model_id: format!("miner:good:{commit}:{hash}:zz").parse().unwrap(),
            ..commitment(5, 300, "good", &commit, hash)
        },
        Commitment {
            model_id: format!("miner:good:{commit}:{hash}").parse().unwrap(),
            ..commitment(6, 300, "good", &commit, hash)
        },
    ];
    let sync = sync(&world, Tracker::default());
    let events = round(&sync, &commitments).await;
    assert_eq!(events.len(), 3, "{events:?}");
    for event in &events {
        match event {
            Event::Verified(model) => {
                assert_eq!((model.hotkey, model.content_hash), (hotkey(1), hash));
                assert_eq!(model.parameters, 224_688);
                assert!(model.dir.join("config.json").is_file());
            }
            Event::Refused { commitment, reason } => {
                assert_eq!(commitment.uid, Uid(2));
                assert!(reason.contains("content hash"));
            }
            Event::Retry {
                commitment, fault, ..
            } => {
                assert_eq!((commitment.uid, fault.kind), (Uid(3), FaultKind::Model));
            }
        }
    }

    // Nothing new: nothing is asked, not even after a restart.
    world.server.api.traffic.clear();
    assert_eq!(round(&sync, &commitments).await.len(), 0);
    let json = serde_json::to_string(&sync.tracker()).unwrap();
    let restarted = crate::sync::sync(&world, serde_json::from_str(&json).unwrap());
    assert_eq!(round(&restarted, &commitments).await.len(), 0);
    assert_eq!(world.server.api.traffic.requests(), []);

    // A changed commitment waits for the update delay.
    let changed = commitment(1, 400, "good", &commit, hash.bound_to(&hotkey(1).ss58()));
    assert_eq!(
        round(&restarted, std::slice::from_ref(&changed))
            .await
            .len(),
        0
    );
    let event = restarted.look_now(&changed, 1_000_000).await.unwrap();
    assert!(matches!(event, Event::Verified(model) if model.block == 400));
}

#[tokio::test]
async fn a_fault_of_the_hub_costs_a_model_nothing() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let commitments = [commitment(1, 100, "good", &commit, content_hash(&files))];
    let sync = sync(&world, Tracker::default());
    world
        .server
        .faults()
        .set(vec![Rule::always(Fault::ServerError)]);
    let events = round(&sync, &commitments).await;
    let [Event::Retry { fault, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(fault.kind, FaultKind::Outside);
    assert_eq!(sync.tracker().faults(), 1);
    world.server.faults().clear();
    let event = sync.look_now(&commitments[0], 1_000_000).await.unwrap();
    assert!(matches!(event, Event::Verified(_)));
    let entry = &sync.tracker().entries()[&hotkey(1)].outcome.clone();
    assert!(matches!(entry, Outcome::Verified { .. }));
}

#[tokio::test]
async fn a_full_queue_of_events_holds_the_downloads_back() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("good", &files);
    let commitments: Vec<_> = (1..=3)
        .map(|n| commitment(n, 100, "good", &commit, content_hash(&files)))
        .collect();
    let sync = sync(&world, Tracker::default());
    let (sender, mut receiver) = mpsc::channel(1);
    let mut uids = BTreeSet::new();
    let listen = async {
        for looked_at in 1..=3 {
            let Some(Event::Verified(model)) = receiver.recv().await else {
                panic!()
            };
            // The next one waits until this one was taken.
            assert_eq!(sync.tracker().entries().len(), looked_at);
            uids.insert(model.hotkey);
        }
    };
    let (round, ()) = tokio::join!(sync.round(&commitments, 1_000_000, &sender), listen);
    round.unwrap();
    assert_eq!(uids.len(), 3);
}

#[tokio::test]
async fn nobody_listening_ends_the_round() {
    let world = World::new().await;
    let commitments = [commitment(
        1,
        100,
        "good",
        &"0".repeat(40),
        content_hash(&Files::new()),
    )];
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let sync = sync(&world, Tracker::default());
    assert!(sync.round(&commitments, 1_000_000, &sender).await.is_err());
    assert_eq!(world.server.api.traffic.requests(), []);
}

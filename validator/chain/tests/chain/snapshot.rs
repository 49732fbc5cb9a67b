//! Snapshots: what is read, in how many requests, across upgrades and discarded states.

use chain::{
    ChainError, ChainSnapshot,
    metagraph::{NeuronSource, neurons_from},
};
use localnet::chain::{CallError, Upgrade};
use subnet::{Netuid, Uid};

use crate::{NETUID, connect, key, start, wallet};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_256_neurons_takes_at_most_12_requests() {
    let chain = start(256, |_| ()).await;
    let client = connect(&[&chain]).await;
    let before = client.usage().requests;
    let snapshot = client.snapshot(NETUID).await.unwrap();
    let requests = client.usage().requests - before;
    assert!(requests <= 12, "{requests} requests");
    assert_eq!(snapshot.neurons.len(), 256);
    assert_eq!(snapshot.neurons[0].hotkey, wallet().hotkey());
    assert!(snapshot.neurons[0].validator_permit);
    assert_eq!(snapshot.neurons[0].stake, 5_000_000_000_000);
    assert_eq!(snapshot.by_uid(Uid(255)).unwrap().hotkey.0, key(255));
    assert_eq!(snapshot.hyperparameters.tempo, 360);
    assert!(
        snapshot
            .next_epoch
            .is_some_and(|next| next > snapshot.block)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_survives_on_disk_with_its_age() {
    let chain = start(4, |_| ()).await;
    let snapshot = connect(&[&chain]).await.snapshot(NETUID).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.json");
    assert_eq!(ChainSnapshot::load(&path).unwrap(), None);
    snapshot.save(&path).unwrap();
    assert_eq!(
        ChainSnapshot::load(&path).unwrap().as_ref(),
        Some(&snapshot)
    );
    assert!(snapshot.age().as_secs() < 60);
    shared::file::write_atomic(&path, b"{\"netuid\":").unwrap();
    assert_eq!(ChainSnapshot::load(&path).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_newtypes_changes_nothing_we_read() {
    let chain = start(8, |_| ()).await;
    let client = connect(&[&chain]).await;
    let before = client.snapshot(NETUID).await.unwrap();
    let upgrade = Upgrade {
        newtypes: true,
        ..Upgrade::default()
    };
    chain.upgrade(upgrade).unwrap();
    let after = client.snapshot(NETUID).await.unwrap();
    assert!(after.spec_version > before.spec_version);
    assert_eq!(after.neurons, before.neurons);
    assert_eq!(
        after.hyperparameters.weights_rate_limit,
        before.hyperparameters.weights_rate_limit
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_the_metagraph_gives_the_same_neurons() {
    let chain = start(16, |_| ()).await;
    let client = connect(&[&chain]).await;
    let mut seen = Vec::new();
    let head = client.head().await.unwrap();
    for source in NeuronSource::ALL {
        seen.push(neurons_from(&head, NETUID, source).await.unwrap());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_does_not_exist_is_the_operators_mistake() {
    let chain = start(2, |_| ()).await;
    let error = connect(&[&chain])
        .await
        .snapshot(Netuid(99))
        .await
        .unwrap_err();
    assert!(matches!(error, ChainError::NoSubnet(Netuid(99))), "{error}");
    assert_eq!(error.kind(), subnet::FaultKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_state_is_taken_anew() {
    let chain = start(2, |_| ()).await;
    let client = connect(&[&chain]).await;
    chain.fail_calls(CallError {
        method: Some("state_queryStorageAt".to_owned()),
        code: 4003,
        message: "Client error: UnknownBlock: State already discarded for 0x12".to_owned(),
        count: 1,
    });
    assert_eq!(client.snapshot(NETUID).await.unwrap().neurons.len(), 2);
}

//! Weights that land: forks, budgets of commits, limits, and stake as the chain counts it.

use chain::{
    metagraph::{NeuronSource, neurons_from},
    weights::{self, Refusal, SetWeightsError, Standing, WeightsRequest, emit_within},
};
use localnet::chain::{Hyperparameter, TAO};
use subnet::Uid;

use crate::{
    NETUID, connect,
    set_weights::{request, set},
    start, wallet,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_takes_weights_back_is_seen() {
    let chain = start(4, |_| ()).await;
    chain.set_finality_lag(20);
    chain.produce_blocks(5).await.unwrap();
    let client = connect(&[&chain]).await;
    let receipt = set(&client, &wallet(), &[(1, 1.0)]).await;
    assert!(!receipt.finalized);
    let standing = async || weights::standing(&client, &receipt).await.unwrap();
    assert_eq!(standing().await, Standing::Open);
    chain.fork(2).unwrap();
    assert_eq!(standing().await, Standing::Gone);
    assert!(client.weights(NETUID, 0).await.unwrap().1.is_empty());
    let again = set(&client, &wallet(), &[(1, 1.0)]).await;
    chain.set_finality_lag(0);
    assert_eq!(
        weights::standing(&client, &again).await.unwrap(),
        Standing::Final
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_commit_is_sent_that_the_chain_has_no_room_for() {
    let chain = start(4, |subnet| {
        subnet.tempo = 500;
        subnet.hyperparameters.weights_rate_limit = 1;
        subnet.hyperparameters.commit_reveal_weights_enabled = true;
    })
    .await;
    let client = connect(&[&chain]).await;
    for _ in 0..10 {
        set(&client, &wallet(), &[(1, 1.0)]).await;
    }
    let blocks = chain.block_number();
    let request = WeightsRequest {
        window: std::time::Duration::from_secs(5),
        ..request(&[(2, 1.0)])
    };
    let error = weights::set(&client, &wallet(), &request)
        .await
        .unwrap_err();
    let SetWeightsError::Refused(refusals) = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(refusals.as_slice(), [Refusal::TooManyCommits { count: 10, blocks }] if *blocks > 400),
        "{refusals:?}"
    );
    assert_eq!(chain.block_number(), blocks, "nothing was sent");
    chain.produce_blocks(500).await.unwrap();
    set(&client, &wallet(), &[(2, 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_cut_to_the_chains_limit() {
    let chain = start(6, |subnet| {
        subnet.hyperparameters.max_weights_limit = 20_000;
    })
    .await;
    let client = connect(&[&chain]).await;
    let wanted = [(1, 0.9), (2, 0.05), (3, 0.03), (4, 0.01), (5, 0.01)];
    let refused = weights::set(&client, &wallet(), &request(&wanted))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("the largest weight"),
        "{refused}"
    );
    let limit = client
        .snapshot(NETUID)
        .await
        .unwrap()
        .hyperparameters
        .max_weight_limit;
    let weights = emit_within(wanted.map(|(uid, weight)| (Uid(uid), weight)), limit).unwrap();
    let cut = WeightsRequest {
        weights,
        ..request(&wanted)
    };
    let receipt = weights::set(&client, &wallet(), &cut).await.unwrap();
    assert_eq!(receipt.stored.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn stake_from_storage_is_the_stake_that_the_chain_counts() {
    let chain = start(3, |_| ()).await;
    chain
        .set_stake(NETUID.0, wallet().hotkey().0, 20 * TAO, 3_000 * TAO)
        .unwrap();
    let head = connect(&[&chain]).await.head().await.unwrap();
    let mut stakes = Vec::new();
    for source in NeuronSource::ALL {
        stakes.push(neurons_from(&head, NETUID, source).await.unwrap()[0].stake);
    }
    assert!(stakes[0] > 100 * TAO, "{stakes:?}");
    assert!(stakes.iter().all(|stake| *stake == stakes[0]), "{stakes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_todays_runtimes_are_read_by_name() {
    let chain = start(3, |_| ()).await;
    let client = connect(&[&chain]).await;
    let rules = async || client.snapshot(NETUID).await.unwrap().hyperparameters;
    let before = rules().await;
    assert_eq!(
        (before.activity_cutoff, before.null_consensus),
        (5000, false)
    );
    assert_eq!(before.registered_at, Some(0));
    assert!(before.time.is_some());
    let change = |name, value| chain.set_hyperparameter(NETUID.0, name, value).unwrap();
    change(Hyperparameter::ActivityCutoffFactor, 1_500);
    change(Hyperparameter::Tempo, 1000);
    change(Hyperparameter::NullConsensus, 1);
    let after = rules().await;
    assert_eq!((after.activity_cutoff, after.null_consensus), (1500, true));
    // A runtime without the call for it takes weights as ever.
    set(&client, &wallet(), &[(1, 1.0)]).await;
}

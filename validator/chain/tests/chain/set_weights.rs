//! Setting weights: plain and committed, read back; each refusal in words.

use std::time::Duration;

use chain::{
    Client, Wallet,
    weights::{
        self, Emitted, Method, Refusal, Reveal, SetWeightsError, WeightsReceipt, WeightsRequest,
        emit,
    },
};
use localnet::chain::{BlockMode, Chain, Hyperparameter};
use sp_core::{Pair as _, sr25519};
use subnet::Uid;

use crate::{NETUID, SEED, connect, start, wallet};

pub(crate) fn request(weights: &[(u16, f64)]) -> WeightsRequest {
    WeightsRequest {
        netuid: NETUID,
        mechanism: 0,
        weights: emit(weights.iter().map(|(uid, weight)| (Uid(*uid), *weight))).unwrap(),
        version_key: 27,
        window: Duration::from_secs(15),
    }
}

/// Sets weights where nothing is in the way.
pub(crate) async fn set(client: &Client, wallet: &Wallet, to: &[(u16, f64)]) -> WeightsReceipt {
    weights::set(client, wallet, &request(to)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_weights_are_set_and_read_back() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let receipt = set(&client, &wallet(), &[(1, 0.25), (2, 1.0)]).await;
    assert_eq!(receipt.method, Method::Plain);
    assert_eq!(receipt.stored, Some(vec![(1, 16384), (2, 65535)]));
    assert_eq!((receipt.attempts, receipt.finalized), (1, true));
    assert_eq!(receipt.block, u64::from(chain.block_number()));
    assert_eq!(
        weights::reveal(&client, &receipt).await.unwrap(),
        Reveal::NotNeeded
    );
    let (_, rows) = client.weights(NETUID, 0).await.unwrap();
    assert_eq!(rows[&Uid(0)], [(1, 16384), (2, 65535)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mechanism_has_weights_of_its_own() {
    let chain = start(4, |subnet| {
        subnet.hyperparameters.mechanism_count = 2;
        subnet.hyperparameters.weights_rate_limit = 50;
    })
    .await;
    let client = connect(&[&chain]).await;
    let second = WeightsRequest {
        mechanism: 1,
        ..request(&[(3, 1.0)])
    };
    let receipt = weights::set(&client, &wallet(), &second).await.unwrap();
    assert_eq!(receipt.call, "set_mechanism_weights");
    assert_eq!(receipt.stored, Some(vec![(3, 65535)]));
    assert!(client.weights(NETUID, 0).await.unwrap().1.is_empty());
    // So is the time of the last weights.
    let too_soon = async |request: WeightsRequest| {
        let refusals = refusals(&chain, &request).await;
        assert!(
            matches!(refusals.as_slice(), [Refusal::TooSoon { .. }]),
            "{refusals:?}"
        );
    };
    too_soon(second).await;
    set(&client, &wallet(), &[(1, 1.0)]).await;
    too_soon(request(&[(1, 1.0)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_weights_become_visible_when_the_chain_reveals_them() {
    for mechanism in [0, 1] {
        let chain = start(4, |subnet| {
            subnet.tempo = 10;
            subnet.hyperparameters.commit_reveal_weights_enabled = true;
            subnet.hyperparameters.mechanism_count = 2;
        })
        .await;
        let client = connect(&[&chain]).await;
        let request = WeightsRequest {
            mechanism,
            ..request(&[(1, 0.5), (3, 1.0)])
        };
        let receipt = weights::set(&client, &wallet(), &request).await.unwrap();
        assert_eq!(receipt.method, Method::TimelockedCommit);
        assert_eq!(receipt.stored, None);
        let plan = receipt.reveal.unwrap();
        assert!(matches!(
            weights::reveal(&client, &receipt).await.unwrap(),
            Reveal::Waiting { block } if block == plan.block
        ));
        let visible = blocks_until_visible(&chain, &client, &receipt).await;
        assert!(
            (plan.block..=plan.block + 4).contains(&visible),
            "{visible} {plan:?}"
        );
    }
}

async fn blocks_until_visible(chain: &Chain, client: &Client, receipt: &WeightsReceipt) -> u64 {
    for _ in 0..40 {
        chain.produce_blocks(1).await.unwrap();
        match weights::reveal(client, receipt).await.unwrap() {
            Reveal::Visible { block } => return block,
            Reveal::Waiting { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("never visible");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_reveal_is_told() {
    let chain = start(4, |subnet| {
        subnet.tempo = 10;
        subnet.hyperparameters.commit_reveal_weights_enabled = true;
    })
    .await;
    let client = connect(&[&chain]).await;
    chain.pause_beacon(true);
    let receipt = set(&client, &wallet(), &[(1, 1.0)]).await;
    chain.produce_blocks(40).await.unwrap();
    assert!(matches!(
        weights::reveal(&client, &receipt).await.unwrap(),
        Reveal::Missed { .. }
    ));
}

async fn refusals(chain: &Chain, request: &WeightsRequest) -> Vec<Refusal> {
    let before = chain.block_number();
    let client = connect(&[chain]).await;
    match weights::set(&client, &wallet(), request).await {
        Err(SetWeightsError::Refused(refusals)) => {
            assert_eq!(chain.block_number(), before, "nothing was sent");
            refusals
        }
        other => panic!("{other:?}"),
    }
}

fn words(refusals: &[Refusal]) -> String {
    refusals
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chain_would_refuse_is_said_before_anything_is_sent() {
    let chain = start(4, |_| ()).await;
    let set = |name, value| chain.set_hyperparameter(NETUID.0, name, value).unwrap();
    let plain = request(&[(1, 1.0), (2, 1.0)]);

    let mut said = Vec::new();
    for (name, value, usual) in [
        (Hyperparameter::WeightsVersion, 28, 0),
        (Hyperparameter::MinAllowedWeights, 3, 1),
        (Hyperparameter::MaxWeightsLimit, 20_000, 65_535),
        (Hyperparameter::StakeThreshold, 6_000_000_000_000, 0),
    ] {
        set(name, value);
        said.push(words(&refusals(&chain, &plain).await));
        set(name, usual);
    }
    let nothing = WeightsRequest {
        weights: Emitted::default(),
        ..plain.clone()
    };
    let elsewhere = WeightsRequest {
        mechanism: 3,
        ..plain.clone()
    };
    for odd in [request(&[(9, 1.0)]), nothing, elsewhere] {
        said.push(words(&refusals(&chain, &odd).await));
    }
    chain.set_permit(NETUID.0, 0, false).unwrap();
    said.push(words(&refusals(&chain, &plain).await));
    chain.set_permit(NETUID.0, 0, true).unwrap();

    chain.set_safe_mode(true).unwrap();
    let refused = refusals(&chain, &plain).await;
    assert!(
        matches!(refused.as_slice(), [Refusal::SafeMode { .. }]),
        "{refused:?}"
    );
    chain.set_safe_mode(false).unwrap();

    set(Hyperparameter::CommitRevealWeightsEnabled, 1);
    set(Hyperparameter::CommitRevealVersion, 5);
    said.push(words(&refusals(&chain, &plain).await));
    set(Hyperparameter::CommitRevealWeightsEnabled, 0);

    chain.deregister(NETUID.0, 0).unwrap();
    said.push(words(&refusals(&chain, &plain).await));
    insta::assert_snapshot!(said.join("\n"), @r"
    the chain asks for version key 28, ours is 27; update the validator
    there are 2 weights above zero, the chain asks for 3
    the largest weight is 32768/65535 of all, the chain allows 20000/65535
    the stake is 5000000000000 rao, the chain asks for 6000000000000
    uid 9 does not exist: the subnet has 4 neurons
    there are 0 weights above zero, the chain asks for 1
    the subnet has 1 mechanism(s), there is no number 3
    uid 0 has no validator permit: its stake is not among the subnet's largest
    the chain asks for commits of version 5, we write version 4; update the validator
    hotkey 5EsNLFaGe9XK5LzWH3i6eC2Wqv6YqZS1442N1C4yeSdP6uxy is not registered on subnet 6
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_soon_is_waited_out_when_the_window_allows() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let wallet = wallet();
    set(&client, &wallet, &[(1, 1.0)]).await;
    chain
        .set_hyperparameter(NETUID.0, Hyperparameter::WeightsRateLimit, 5)
        .unwrap();
    let short = WeightsRequest {
        window: Duration::from_secs(5),
        ..request(&[(2, 1.0)])
    };
    let error = weights::set(&client, &wallet, &short).await.unwrap_err();
    assert!(matches!(error, SetWeightsError::Refused(_)), "{error}");
    chain.set_block_mode(BlockMode::Every(Duration::from_millis(100)));
    let long = WeightsRequest {
        window: Duration::from_secs(600),
        ..request(&[(2, 1.0)])
    };
    let receipt = weights::set(&client, &wallet, &long).await.unwrap();
    assert_eq!(receipt.stored, Some(vec![(2, 65535)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_weights_of_our_hotkey_raise_the_alarm() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    // What each process of this user has: a wallet of its own.
    let (ours, other) = (wallet(), wallet());
    let snapshot = client.snapshot(NETUID).await.unwrap();
    let mut guard = weights::TwinGuard::acquire(&ours, &snapshot).unwrap();
    let second = weights::TwinGuard::acquire(&other, &snapshot).unwrap_err();
    assert!(second.to_string().contains("is held by pid"), "{second}");

    let neuron = async || client.snapshot(NETUID).await.unwrap().neurons[0].clone();
    assert_eq!(
        guard.check(&client, &ours, &neuron().await).await.unwrap(),
        None
    );
    set(&client, &ours, &[(1, 1.0)]).await;
    assert_eq!(
        guard.check(&client, &ours, &neuron().await).await.unwrap(),
        None
    );
    set(&client, &other, &[(1, 1.0)]).await;
    assert_eq!(
        guard.check(&client, &ours, &neuron().await).await.unwrap(),
        None,
        "another process of ours is not a twin"
    );

    // Another machine, which has no part in what this user's processes tell each other.
    let pair = sr25519::Pair::from_seed(&SEED);
    chain
        .set_weights(NETUID.0, &pair, &[(2, 65535)], 27)
        .unwrap();
    let alarm = guard
        .check(&client, &ours, &neuron().await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alarm.block, u64::from(chain.block_number()));
    assert_eq!(
        guard.check(&client, &ours, &neuron().await).await.unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn our_transaction_that_lands_after_a_restart_is_ours() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    // It is taken into the pool, and its sender ends before a block comes.
    chain.set_block_mode(BlockMode::Every(Duration::from_secs(3600)));
    let short = WeightsRequest {
        window: Duration::from_secs(2),
        ..request(&[(1, 1.0)])
    };
    weights::set(&client, &wallet(), &short).await.unwrap_err();

    let restarted = wallet();
    let snapshot = client.snapshot(NETUID).await.unwrap();
    let mut guard = weights::TwinGuard::acquire(&restarted, &snapshot).unwrap();
    let look = guard.check(&client, &restarted, &snapshot.neurons[0]).await;
    assert_eq!(look.unwrap(), None);
    chain.produce_blocks(1).await.unwrap();
    let landed = client.snapshot(NETUID).await.unwrap();
    assert!(landed.neurons[0].last_update > snapshot.neurons[0].last_update);
    let look = guard.check(&client, &restarted, &landed.neurons[0]).await;
    assert_eq!(look.unwrap(), None);
}

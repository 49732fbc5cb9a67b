//! Timelocked commit-reveal from end to end, sealed as a validator seals.

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use codec::Encode;
use localnet::chain::{Chain, Hyperparameter, Hyperparameters};
use sha2::{Digest, Sha256};
use subxt::dynamic::Value;
use timelock::{
    block_ciphers::AESGCMBlockCipherProvider,
    engines::{EngineBLS, drand::TinyBLS381},
    ibe::fullident::Identity,
    tlock::tle,
};

use super::{Client, NETUID, key, start, submit};

/// Start of drand's quicknet, and the length of its rounds, in seconds.
const GENESIS: u64 = 1_692_803_367;
const PERIOD: u64 = 3;

fn hyperparameters() -> Hyperparameters {
    Hyperparameters {
        commit_reveal_weights_enabled: true,
        ..Hyperparameters::default()
    }
}

/// Returns the round of three blocks after this one begins.
fn round_after(chain: &Chain, block: u32) -> u64 {
    let blocks = u64::from(block + 3 - chain.block_number());
    (chain.time() / 1000 + 12 * blocks - GENESIS) / PERIOD
}

/// Weights as they are sealed: hotkey, uids, values, version key.
fn payload(hotkey: [u8; 32], uids: &[u16], values: &[u16], version: u64) -> Vec<u8> {
    (hotkey.to_vec(), uids.to_vec(), values.to_vec(), version).encode()
}

/// Seals a payload until a round, in the chain's framing: the byte strings `v` and `w` carry their
/// lengths, which the `timelock` crate leaves out.
fn seal(chain: &Chain, payload: &[u8], round: u64) -> Vec<u8> {
    type PublicKey = <TinyBLS381 as EngineBLS>::PublicKeyGroup;
    let public = PublicKey::deserialize_compressed(&chain.beacon_public_key()[..]).unwrap();
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let sealed = tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(
        public,
        [7; 32],
        payload,
        identity,
        ark_std::rand::rngs::OsRng,
    )
    .unwrap();
    let mut bytes = Vec::new();
    sealed.header.u.serialize_compressed(&mut bytes).unwrap();
    sealed
        .header
        .v
        .to_vec()
        .serialize_compressed(&mut bytes)
        .unwrap();
    sealed
        .header
        .w
        .to_vec()
        .serialize_compressed(&mut bytes)
        .unwrap();
    sealed.body.serialize_compressed(&mut bytes).unwrap();
    sealed
        .cipher_suite
        .serialize_compressed(&mut bytes)
        .unwrap();
    bytes
}

async fn commit(client: &Client, commit: Vec<u8>, round: u64, version: u16) -> Result<(), String> {
    let arguments = vec![
        Value::u128(NETUID.into()),
        Value::from_bytes(commit),
        Value::u128(round.into()),
        Value::u128(version.into()),
    ];
    submit(
        client,
        "SubtensorModule",
        "commit_timelocked_weights",
        arguments,
        "//Alice",
    )
    .await
    .map(drop)
}

#[tokio::test]
async fn sealed_weights_appear_after_the_epoch_they_wait_for() {
    let (chain, client) = start(hyperparameters()).await;
    // Committed in epoch 0; epoch 1 begins with block 20.
    let round = round_after(&chain, 20);
    let sealed = seal(&chain, &payload(key("//Alice"), &[2, 3], &[1, 1], 0), round);
    commit(&client, sealed, round, 4).await.unwrap();
    let alice = &chain.neurons(NETUID)[0];
    assert_eq!(alice.last_update, u64::from(chain.block_number()));
    assert!(alice.weights.is_empty());

    let mut revealed = None;
    while revealed.is_none() && chain.block_number() < 40 {
        chain.produce_blocks(1).await.unwrap();
        if !chain.neurons(NETUID)[0].weights.is_empty() {
            revealed = Some(chain.block_number());
        }
    }
    // The pulse is stored at the end of the block of its time, so the next opens the commit.
    assert_eq!(revealed, Some(24));
    assert_eq!(chain.neurons(NETUID)[0].weights, [(2, 65_535), (3, 65_535)]);
    chain.produce_blocks(20).await.unwrap();
    assert_eq!(chain.neurons(NETUID)[2].incentive, 32_767);
}

#[tokio::test]
async fn commits_are_refused_for_each_reason() {
    let (chain, client) = start(hyperparameters()).await;
    let round = round_after(&chain, 20);
    let sealed = || vec![1; 100];
    let refused = commit(&client, sealed(), round, 3).await.unwrap_err();
    assert!(
        refused.contains("IncorrectCommitRevealVersion"),
        "{refused}"
    );
    let refused = commit(&client, sealed(), 1, 4).await.unwrap_err();
    assert!(refused.contains("Custom error: 15"), "{refused}");
    commit(&client, sealed(), round, 4).await.unwrap();
    let refused = commit(&client, sealed(), round, 4).await.unwrap_err();
    assert!(refused.contains("CommittingWeightsTooFast"), "{refused}");
    chain
        .set_hyperparameter(NETUID, Hyperparameter::WeightsRateLimit, 0)
        .unwrap();
    for _ in 1..10 {
        commit(&client, sealed(), round, 4).await.unwrap();
    }
    let refused = commit(&client, sealed(), round, 4).await.unwrap_err();
    assert!(refused.contains("TooManyUnrevealedCommits"), "{refused}");
    chain
        .set_hyperparameter(NETUID, Hyperparameter::CommitRevealWeightsEnabled, 0)
        .unwrap();
    let refused = commit(&client, sealed(), round, 4).await.unwrap_err();
    assert!(refused.contains("CommitRevealDisabled"), "{refused}");
}

/// Commits bytes for epoch 1 and returns Alice's weights well after it began.
async fn after_reveal(seal_with: impl Fn(&Chain, u64) -> Vec<u8>) -> Vec<(u16, u16)> {
    let (chain, client) = start(hyperparameters()).await;
    let round = round_after(&chain, 20);
    commit(&client, seal_with(&chain, round), round, 4)
        .await
        .unwrap();
    chain.produce_blocks(30).await.unwrap();
    chain.neurons(NETUID)[0].weights.clone()
}

#[tokio::test]
async fn what_does_not_open_rightly_never_becomes_weights() {
    let mine = || payload(key("//Alice"), &[2], &[1], 0);
    assert_eq!(
        after_reveal(|chain, round| seal(chain, &mine(), round)).await,
        [(2, 65_535)]
    );
    // The form before hotkeys were named.
    let legacy = (vec![2_u16], vec![1_u16], 0_u64).encode();
    assert_eq!(
        after_reveal(|chain, round| seal(chain, &legacy, round)).await,
        [(2, 65_535)]
    );

    let others = payload(key("//Bob"), &[2], &[1], 0);
    assert_eq!(
        after_reveal(|chain, round| seal(chain, &others, round)).await,
        []
    );
    let twice = payload(key("//Alice"), &[2, 2], &[1, 1], 0);
    assert_eq!(
        after_reveal(|chain, round| seal(chain, &twice, round)).await,
        []
    );
    assert_eq!(
        after_reveal(|chain, round| seal(chain, &mine(), round + 1)).await,
        []
    );
    let unframed = |chain: &Chain, round| {
        let mut bytes = seal(chain, &mine(), round);
        bytes.drain(96..104);
        bytes
    };
    assert_eq!(after_reveal(unframed).await, []);
}

#[tokio::test]
async fn a_silent_beacon_delays_the_reveal_within_the_epoch_and_then_loses_it() {
    let (chain, client) = start(hyperparameters()).await;
    chain.pause_beacon(true);
    let round = round_after(&chain, 20);
    let sealed = seal(&chain, &payload(key("//Alice"), &[2], &[1], 0), round);
    commit(&client, sealed.clone(), round, 4).await.unwrap();
    chain.produce_blocks(28).await.unwrap();
    assert!(chain.neurons(NETUID)[0].weights.is_empty());
    chain.pause_beacon(false);
    chain.produce_blocks(2).await.unwrap();
    assert_eq!(chain.neurons(NETUID)[0].weights, [(2, 65_535)]);

    let (chain, client) = start(hyperparameters()).await;
    chain.pause_beacon(true);
    commit(&client, sealed, round_after(&chain, 20), 4)
        .await
        .unwrap();
    chain.produce_blocks(40).await.unwrap();
    chain.pause_beacon(false);
    chain.produce_blocks(10).await.unwrap();
    assert!(chain.neurons(NETUID)[0].weights.is_empty());
}

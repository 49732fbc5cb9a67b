//! Reading: metadata, storage, iteration, runtime APIs, old states.

use std::collections::BTreeMap;

use localnet::chain::{Hyperparameters, TAO};
use scale_decode::DecodeAsType;
use subxt::dynamic::{self, Value};

use super::{NETUID, key, pair, start};

#[derive(DecodeAsType, Debug, PartialEq)]
struct Metagraph {
    netuid: u16,
    block: u64,
    tempo: u16,
    num_uids: u16,
    hotkeys: Vec<[u8; 32]>,
    coldkeys: Vec<[u8; 32]>,
    validator_permit: Vec<bool>,
    last_update: Vec<u64>,
    incentives: Vec<u16>,
    total_stake: Vec<u64>,
}

#[derive(DecodeAsType, Debug)]
struct Selected {
    hotkeys: Option<Vec<[u8; 32]>>,
    commitments: Option<Vec<([u8; 32], Vec<u8>)>>,
    tempo: Option<u16>,
}

#[tokio::test]
async fn storage_is_read_by_key_and_by_prefix() {
    let (_chain, client) = start(Hyperparameters::default()).await;
    let at = client.at_current_block().await.unwrap();
    let tempo = dynamic::storage::<(u16,), u16>("SubtensorModule", "Tempo");
    let tempo = at.storage().fetch(tempo, (NETUID,)).await.unwrap();
    assert_eq!(tempo.decode().unwrap(), 20);

    let keys = dynamic::storage::<(u16, u16), [u8; 32]>("SubtensorModule", "Keys");
    let mut entries = at.storage().iter(keys, (NETUID,)).await.unwrap();
    let mut hotkeys = BTreeMap::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.unwrap();
        let (_, uid) = entry.key().unwrap().decode().unwrap();
        hotkeys.insert(uid, entry.value().decode().unwrap());
    }
    let expected = ["//Alice", "//Bob", "//Charlie", "//Dave"].map(key);
    assert_eq!(hotkeys.into_values().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_unset_flag_reads_as_its_default() {
    let (_chain, client) = start(Hyperparameters::default()).await;
    let at = client.at_current_block().await.unwrap();
    let flag = dynamic::storage::<(u16,), bool>("SubtensorModule", "CommitRevealWeightsEnabled");
    assert!(
        !at.storage()
            .fetch(&flag, (NETUID,))
            .await
            .unwrap()
            .decode()
            .unwrap()
    );
    assert!(
        at.storage()
            .fetch(&flag, (NETUID + 1,))
            .await
            .unwrap()
            .decode()
            .unwrap()
    );
}

#[tokio::test]
async fn runtime_apis_answer_the_metagraph_whole_and_in_part() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let at = client.at_current_block().await.unwrap();
    let call = dynamic::runtime_api_call::<_, Option<Metagraph>>(
        "SubnetInfoRuntimeApi",
        "get_metagraph",
        (NETUID,),
    );
    let whole = at.runtime_apis().call(call).await.unwrap().unwrap();
    assert_eq!(whole.netuid, NETUID);
    assert_eq!(whole.block, u64::from(chain.block_number()));
    assert_eq!(whole.validator_permit, [true, true, false, false]);
    assert_eq!(whole.total_stake, [3000 * TAO, 1000 * TAO, 0, 0]);
    assert_eq!(whole.coldkeys[3], key("//Eve"));
    assert_eq!(whole.last_update, [0; 4]);

    chain.commit(NETUID, &pair("//Charlie"), b"a:b:c").unwrap();
    let at = client.at_current_block().await.unwrap();
    let call = dynamic::runtime_api_call::<_, Option<Selected>>(
        "SubnetInfoRuntimeApi",
        "get_selective_metagraph",
        (NETUID, vec![52_u16, 73]),
    );
    let part = at.runtime_apis().call(call).await.unwrap().unwrap();
    assert_eq!(part.hotkeys.unwrap(), whole.hotkeys);
    assert!(part.tempo.is_none());
    // One field, of kind `Raw5`.
    let record = [&[4_u8, 6][..], &b"a:b:c"[..]].concat();
    assert_eq!(part.commitments.unwrap(), [(key("//Charlie"), record)]);
}

#[tokio::test]
async fn hyperparameters_come_in_three_forms() {
    let hyperparameters = Hyperparameters {
        weights_version: 27,
        ..Hyperparameters::default()
    };
    let (_chain, client) = start(hyperparameters).await;
    let at = client.at_current_block().await.unwrap();
    for method in ["get_subnet_hyperparams", "get_subnet_hyperparams_v2"] {
        #[derive(DecodeAsType)]
        struct Answer {
            weights_version: u64,
            tempo: u16,
            commit_reveal_weights_enabled: bool,
        }
        let call = dynamic::runtime_api_call::<_, Option<Answer>>(
            "SubnetInfoRuntimeApi",
            method,
            (NETUID,),
        );
        let answer = at.runtime_apis().call(call).await.unwrap().unwrap();
        assert_eq!((answer.weights_version, answer.tempo), (27, 20));
        assert!(!answer.commit_reveal_weights_enabled);
    }
    let call = dynamic::runtime_api_call::<_, Value>(
        "SubnetInfoRuntimeApi",
        "get_subnet_hyperparams_v3",
        (NETUID,),
    );
    let answer = at.runtime_apis().call(call).await.unwrap().to_string();
    assert!(answer.contains("U64 (27)"), "{answer}");
}

#[tokio::test]
async fn a_subnet_that_is_not_there_is_no_error() {
    let (_chain, client) = start(Hyperparameters::default()).await;
    let at = client.at_current_block().await.unwrap();
    let call = dynamic::runtime_api_call::<_, Option<Metagraph>>(
        "SubnetInfoRuntimeApi",
        "get_metagraph",
        (NETUID + 1,),
    );
    assert_eq!(at.runtime_apis().call(call).await.unwrap(), None);
    let call = dynamic::runtime_api_call::<_, Vec<Value>>(
        "NeuronInfoRuntimeApi",
        "get_neurons_lite",
        (NETUID + 1,),
    );
    assert!(at.runtime_apis().call(call).await.unwrap().is_empty());
}

#[tokio::test]
async fn old_states_stay_readable_until_they_are_discarded() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain
        .set_weights(NETUID, &pair("//Alice"), &[(2, 1), (3, 2)], 0)
        .unwrap();
    let weights = dynamic::storage::<(u16, u16), Vec<(u16, u16)>>("SubtensorModule", "Weights");
    let before = client.at_block(1_u32).await.unwrap();
    let fetched = before.storage().fetch(&weights, (NETUID, 0)).await.unwrap();
    assert!(fetched.decode().unwrap().is_empty());
    let after = client.at_current_block().await.unwrap();
    let fetched = after.storage().fetch(&weights, (NETUID, 0)).await.unwrap();
    assert_eq!(fetched.decode().unwrap(), [(2, 32_768), (3, 65_535)]);

    chain.discard_states_before(2);
    let error = before
        .storage()
        .fetch(&weights, (NETUID, 1))
        .await
        .err()
        .unwrap();
    assert!(
        super::full(&error).contains("State already discarded"),
        "{error:?}"
    );
}

#[tokio::test]
async fn constants_tell_the_time_between_blocks() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let at = client.at_current_block().await.unwrap();
    let slot = dynamic::constant::<u64>("Aura", "SlotDuration");
    assert_eq!(at.constants().entry(slot).unwrap(), 12_000);
    let before = chain.time();
    chain.produce_blocks(3).await.unwrap();
    assert_eq!(chain.time() - before, 36_000);
}

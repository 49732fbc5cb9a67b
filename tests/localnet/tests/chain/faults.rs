//! Trouble on demand, and the node's own behavior.

use std::{collections::BTreeSet, time::Duration};

use localnet::chain::{
    BlockMode, CallError, Chain, ChainConfig, ChainError, Hyperparameters, Stall,
};
use serde_json::json;
use subxt::{dynamic, tx::TransactionStatus};
use tokio::task::JoinSet;

use super::{Client, NETUID, Signer, ask, connect, full, pair, start, weights_call};

/// Waits until a method was called this often.
async fn called(chain: &Chain, method: &str, times: u64) {
    let calls = async {
        while chain.requests().get(method).copied().unwrap_or(0) < times {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), calls)
        .await
        .expect(method);
}

#[tokio::test]
async fn a_stalled_method_is_answered_when_the_stall_ends() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.reset_requests();
    chain.stall(Stall::Methods(BTreeSet::from([
        "chain_getFinalizedHead".to_owned()
    ])));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.at_current_block().await.unwrap().block_number() });
    called(&chain, "chain_getFinalizedHead", 1).await;
    // Another method is answered meanwhile.
    let version = ask(&chain, "state_getRuntimeVersion", json!([])).await;
    assert_eq!(version["result"]["specName"], "node-subtensor");
    assert!(waiting.try_join_next().is_none());
    chain.clear_faults();
    assert_eq!(
        waiting.join_next().await.unwrap().unwrap(),
        u64::from(chain.block_number())
    );
}

#[tokio::test]
async fn a_stall_of_all_leaves_the_dev_methods() {
    let (chain, _client) = start(Hyperparameters::default()).await;
    ask(&chain, "dev_stall", json!([])).await;
    let answer = ask(&chain, "dev_produceBlocks", json!([2])).await;
    assert_eq!(answer["result"], 3);
    ask(&chain, "dev_clearFaults", json!([])).await;
    assert_eq!(
        ask(&chain, "system_chainType", json!([])).await["result"],
        "Local"
    );
}

#[tokio::test]
async fn an_extrinsic_may_be_included_without_a_word() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.stall(Stall::Methods(BTreeSet::from([
        "author_extrinsicUpdate".to_owned()
    ])));
    let mut progress = watch(&client).await;
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        while let Some(status) = progress.next().await {
            if let TransactionStatus::InFinalizedBlock(_) = status.unwrap() {
                return true;
            }
        }
        false
    });
    assert_eq!(chain.neurons(NETUID)[0].weights, [(2, 65_535)]);
    assert!(waiting.try_join_next().is_none());
    chain.clear_faults();
    assert!(waiting.join_next().await.unwrap().unwrap());
}

type Progress = subxt::tx::TransactionProgress<
    subxt::PolkadotConfig,
    subxt::client::OnlineClientAtBlockImpl<subxt::PolkadotConfig>,
>;

async fn watch(client: &Client) -> Progress {
    let call = dynamic::transaction(
        "SubtensorModule",
        "set_weights",
        weights_call(NETUID, &[2], &[1], 0),
    );
    let at = client.at_current_block().await.unwrap();
    at.transactions()
        .sign_and_submit_then_watch_default(&call, &Signer(pair("//Alice")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_cut_ends_connections_and_refuses_new_ones_for_a_while() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let mut blocks = client.stream_blocks().await.unwrap();
    blocks.next().await.unwrap().unwrap();
    chain.cut(Duration::from_secs(3600));
    // The stream ends, with or without an error.
    while let Some(Ok(_)) = blocks.next().await {}
    assert!(client.at_current_block().await.is_err());
    assert!(Client::from_url(chain.ws_url()).await.is_err());
    chain.clear_faults();
    let client = connect(&chain).await;
    assert_eq!(client.at_current_block().await.unwrap().block_number(), 1);
}

#[tokio::test]
async fn connections_get_an_http_status() {
    let (chain, _client) = start(Hyperparameters::default()).await;
    for status in [429, 403] {
        chain.refuse_http(status, 1);
        let refused = Client::from_url(chain.ws_url()).await.err().unwrap();
        assert!(full(&refused).contains(&status.to_string()), "{refused:?}");
        connect(&chain).await;
    }
}

#[tokio::test]
async fn calls_fail_as_often_as_told() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.fail_calls(CallError {
        method: Some("chain_getFinalizedHead".into()),
        code: -32005,
        message: "too many requests".into(),
        count: 1,
    });
    let refused = client.at_current_block().await.err().unwrap();
    assert!(full(&refused).contains("-32005"), "{refused:?}");
    client.at_current_block().await.unwrap();
}

#[tokio::test]
async fn calls_answer_garbage_as_often_as_told() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.answer_calls("chain_getHeader", json!({ "number": [] }), 1);
    client.at_current_block().await.err().unwrap();
    client.at_current_block().await.unwrap();
}

#[tokio::test]
async fn finality_lags_as_told() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.set_finality_lag(3);
    let mut progress = watch(&client).await;
    let included = loop {
        match progress.next().await.unwrap().unwrap() {
            TransactionStatus::InBestBlock(block) => break block.block_hash(),
            TransactionStatus::InFinalizedBlock(_) => panic!("final at once"),
            _ => {}
        }
    };
    assert_eq!(chain.block_hash(2).unwrap(), included.0);
    assert_eq!((chain.block_number(), chain.finalized_number()), (2, 1));
    chain.produce_blocks(3).await.unwrap();
    assert_eq!((chain.block_number(), chain.finalized_number()), (5, 2));
    while !matches!(
        progress.next().await.unwrap().unwrap(),
        TransactionStatus::InFinalizedBlock(_)
    ) {}
    // It never goes back.
    chain.set_finality_lag(100);
    assert_eq!(chain.finalized_number(), 2);
}

#[tokio::test]
async fn heads_come_one_by_one_however_fast_blocks_are_made() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let mut blocks = client.stream_best_blocks().await.unwrap();
    assert_eq!(blocks.next().await.unwrap().unwrap().number(), 1);
    chain.produce_blocks(20).await.unwrap();
    for number in 2..=21 {
        assert_eq!(blocks.next().await.unwrap().unwrap().number(), number);
    }
}

#[tokio::test]
async fn blocks_come_by_the_clock() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let mut blocks = client.stream_blocks().await.unwrap();
    chain.set_block_mode(BlockMode::Every(Duration::from_millis(5)));
    while blocks.next().await.unwrap().unwrap().number() < 10 {}
}

#[tokio::test]
async fn a_call_that_does_not_decode_is_an_error_not_an_end() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let params = json!(["SubnetInfoRuntimeApi_get_metagraph", "0x01"]);
    let answer = ask(&chain, "state_call", params).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("trapped"),
        "{answer}"
    );
    let answer = ask(&chain, "state_call", json!(["Nothing_at_all", "0x"])).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("is not found"),
        "{answer}"
    );
    client.at_current_block().await.unwrap();
}

#[tokio::test]
async fn older_tools_find_what_they_ask_for() {
    let (chain, _client) = start(Hyperparameters::default()).await;
    let metadata = ask(&chain, "state_getMetadata", json!([])).await;
    // `meta`, version 14.
    assert!(
        metadata["result"]
            .as_str()
            .unwrap()
            .starts_with("0x6d6574610e")
    );
    let block = ask(&chain, "chain_getBlock", json!([])).await;
    assert_eq!(block["result"]["block"]["header"]["number"], "0x1");
    assert_eq!(
        block["result"]["block"]["extrinsics"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let properties = ask(&chain, "system_properties", json!([])).await;
    assert_eq!(properties["result"]["ss58Format"], 42);
    let methods = ask(&chain, "rpc_methods", json!([])).await;
    let listed = methods["result"]["methods"].as_array().unwrap();
    for method in [
        "state_getKeysPaged",
        "state_queryStorageAt",
        "author_submitAndWatchExtrinsic",
    ] {
        assert!(listed.contains(&json!(method)));
    }
}

#[tokio::test]
async fn the_dev_methods_do_what_the_library_does() {
    let (chain, _client) = start(Hyperparameters::default()).await;
    let neuron = json!({
        "hotkey": format!("0x{}", "07".repeat(32)),
        "coldkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        "stake": 5,
        "validatorPermit": true,
    });
    let uid = ask(&chain, "dev_register", json!([NETUID, neuron])).await;
    assert_eq!(uid["result"], 4);
    let registered = chain.neurons(NETUID)[4].clone();
    assert_eq!((registered.hotkey, registered.stake), ([7; 32], 5));
    assert!(registered.validator_permit);
    let again = ask(&chain, "dev_register", json!([NETUID, neuron])).await;
    let message = again["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("HotKeyAlreadyRegisteredInSubNet"),
        "{message}"
    );
    let name = ask(
        &chain,
        "dev_setHyperparameter",
        json!([NETUID, "no_such", 1]),
    )
    .await;
    assert!(name["error"]["message"].is_string());
    ask(&chain, "dev_setHyperparameter", json!([NETUID, "tempo", 7])).await;
    ask(&chain, "dev_deregister", json!([NETUID, 4])).await;
    assert_ne!(chain.neurons(NETUID)[4].hotkey, [7; 32]);
    let requests = ask(&chain, "dev_requests", json!([true])).await;
    assert_eq!(requests["result"]["dev_register"], 2);
    assert!(chain.requests().is_empty());
}

#[tokio::test]
async fn a_stopped_chain_frees_its_port_and_a_taken_one_is_named() {
    let (chain, _client) = start(Hyperparameters::default()).await;
    let port: u16 = chain.ws_url().rsplit(':').next().unwrap().parse().unwrap();
    let config = ChainConfig {
        port,
        ..ChainConfig::default()
    };
    match Chain::start(config.clone()).await {
        Err(ChainError::Listen { port: named, .. }) => assert_eq!(named, port),
        other => panic!("{other:?}"),
    }
    chain.stop().await;
    Chain::start(config).await.unwrap().stop().await;
}

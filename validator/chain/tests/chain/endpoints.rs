//! Several endpoints of one chain: the freshest healthy one is asked, the preferred one returned
//! to, another chain's never.

use std::time::Duration;

use chain::{Client, Endpoints, weights, weights::SetWeightsError};
use localnet::chain::{BlockMode, CallError, Chain, Gateway};
use tokio::time::timeout;

use crate::{
    NETUID, connect, deadlines,
    set_weights::{request, set},
    start, start_other, wallet,
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn url(chain: &Chain) -> String {
    chain.ws_url() + "/"
}

fn refusal(method: Option<&str>, code: i32, message: &str) -> CallError {
    CallError {
        method: method.map(ToOwned::to_owned),
        code,
        message: message.to_owned(),
        count: u32::MAX,
    }
}

/// Waits until an endpoint is in use, while blocks come.
async fn used(client: &Client, chain: &Chain, node: &Chain) {
    chain.set_block_mode(BlockMode::Every(Duration::from_millis(50)));
    let mut blocks = client.blocks();
    let waiting = async {
        while client.endpoint() != Some(url(node)) {
            blocks.next().await.unwrap();
        }
    };
    timeout(LIMIT, waiting).await.expect("it is used");
    chain.set_block_mode(BlockMode::OnDemand);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fresher_endpoint_is_used_and_the_preferred_returned_to() {
    let chain = start(4, |_| ()).await;
    chain.produce_blocks(60).await.unwrap();
    let second = chain.second_node().await.unwrap();
    chain.set_lag(30);
    let client = connect(&[&chain, &second]).await;
    assert_eq!(
        client.endpoint(),
        Some(url(&second)),
        "the first lags from the start"
    );
    chain.set_lag(0);
    used(&client, &chain, &chain).await;
    // It falls behind while it is in use.
    chain.set_lag(30);
    used(&client, &chain, &second).await;
    let snapshot = client.snapshot(NETUID).await.unwrap();
    assert!(snapshot.block + 5 > chain.block_number().into());
    let report = client.endpoints();
    assert!(report[0].lag > Some(20), "{report:?}");
    assert!(report[1].in_use && report[1].lag < Some(5), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_endpoint_that_was_failed_over_to_is_left_again() {
    let chain = start(4, |_| ()).await;
    chain.produce_blocks(60).await.unwrap();
    let second = chain.second_node().await.unwrap();
    second.set_lag(50);
    let client = connect(&[&chain, &second]).await;
    assert_eq!(client.endpoint(), Some(url(&chain)));
    chain.cut(Duration::from_millis(300));
    client.block_number().await.unwrap();
    used(&client, &chain, &chain).await;
    let receipt = set(&client, &wallet(), &[(1, 1.0)]).await;
    assert_eq!(receipt.block, u64::from(chain.block_number()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_but_that_of_our_request_moves_on() {
    let chain = start(4, |_| ()).await;
    let second = chain.second_node().await.unwrap();
    for (code, message) in [
        (-32603, "internal error"),
        (-32000, "server error"),
        (-32001, "upstream is away"),
        (-32601, "method not found"),
        (4003, "Client error: UnknownBlock: State already discarded"),
        (-32005, "too many requests"),
    ] {
        let client = connect(&[&chain, &second]).await;
        chain.fail_calls(refusal(None, code, message));
        let snapshot = timeout(LIMIT, client.snapshot(NETUID))
            .await
            .expect("an end");
        assert_eq!(snapshot.unwrap().neurons.len(), 4, "{code}");
        set(&client, &wallet(), &[(2, 1.0)]).await;
        chain.clear_faults();
    }
    // What is our own fault is told at once.
    let client = connect(&[&chain, &second]).await;
    chain.fail_calls(refusal(
        Some("chain_getHeader"),
        -32602,
        "invalid parameters",
    ));
    second.reset_requests();
    let error = client.block_number().await.unwrap_err().to_string();
    assert!(error.contains("invalid parameters"), "{error}");
    assert_eq!(second.requests().get("chain_getHeader"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_is_refused_also_after_a_fail_over() {
    let chain = start(4, |_| ()).await;
    let other = start_other(4).await;
    let client = connect(&[&chain, &other]).await;
    let gateway = Gateway::open(&chain).await.unwrap();
    let endpoints = Endpoints::resolve(None, &[gateway.ws_url()]).unwrap();
    let through = Client::connect(&endpoints, deadlines()).await.unwrap();
    assert!(
        client.endpoints()[1].other_chain,
        "{:?}",
        client.endpoints()
    );
    gateway.lead_to(&other);
    let error = timeout(LIMIT, through.block_number())
        .await
        .expect("an end")
        .unwrap_err();
    assert!(
        error.to_string().contains("serves another chain"),
        "{error}"
    );
    gateway.lead_to(&chain);
    timeout(LIMIT, async {
        while through.block_number().await.is_err() {}
    })
    .await
    .expect("it is back");
    chain.stop().await;
    let error = timeout(LIMIT, client.block_number())
        .await
        .expect("an end")
        .unwrap_err();
    assert_eq!(error.kind(), subnet::FaultKind::Outside, "{error}");
    assert_eq!(other.requests().get("state_getRuntimeVersion"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_land_through_endpoints_that_can_watch_nothing() {
    const WATCH: &str = "author_submitAndWatchExtrinsic";
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    for (uid, code, message) in [
        (1, -32601, "Method not found"),
        (2, -32000, "subscriptions are not part of your plan"),
    ] {
        chain.fail_calls(refusal(Some(WATCH), code, message));
        let receipt = set(&client, &wallet(), &[(uid, 1.0)]).await;
        assert_eq!(receipt.stored, Some(vec![(uid, u16::MAX)]), "{code}");
        assert_eq!(receipt.attempts, 1, "{code}");
        chain.clear_faults();
    }
    chain.fail_calls(refusal(Some(WATCH), -32601, "Method not found"));
    chain.fail_submissions(1, 1);
    let error = weights::set(&client, &wallet(), &request(&[(3, 1.0)]))
        .await
        .unwrap_err();
    assert!(matches!(error, SetWeightsError::Pool { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_an_address_are_shown_nowhere() {
    const SECRETS: [&str; 4] = ["USERKEY9", "PASSWORD9", "PATHKEY9", "QUERYKEY9"];
    let chain = start(2, |_| ()).await;
    let port = chain.ws_url().rsplit(':').next().unwrap().to_owned();
    let [user, password, path, query] = SECRETS;
    let address = format!("ws://{user}:{password}@127.0.0.1:{port}/v1/{path}?key={query}");
    let endpoints = Endpoints::resolve(None, &[address]).unwrap();
    let client = Client::connect(&endpoints, deadlines()).await.unwrap();
    chain.fail_calls(CallError {
        count: 1,
        ..refusal(None, -32000, "no quota left for QUERYKEY9 and /v1/PATHKEY9")
    });
    let refused = client.block_number().await.unwrap_err().to_string();
    assert!(refused.contains("no quota left for ***"), "{refused}");
    chain.stop().await;
    let gone = client.block_number().await.unwrap_err();
    let said = format!(
        "{refused} {gone} {gone:?} {:?} {client:?} {endpoints:?}",
        client.endpoints()
    );
    assert!(said.contains("***@127.0.0.1"), "{said}");
    for secret in SECRETS {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_is_asked_once_a_connection_what_it_can_do() {
    let chain = start(4, |_| ()).await;
    chain.produce_blocks(250).await.unwrap();
    let second = chain.second_node().await.unwrap();
    let methods = serde_json::json!({"methods": ["author_submitExtrinsic", "state_call"]});
    second.answer_calls("rpc_methods", methods, u32::MAX);
    let client = connect(&[&chain, &second]).await;
    let known = || client.endpoints().into_iter().map(|one| one.abilities);
    assert!(
        known().all(|abilities| abilities.is_none()),
        "not asked yet"
    );
    // As with each block that the validator sees.
    let told = e2e::wait::until(LIMIT, || {
        client.learn_abilities();
        known().all(|abilities| abilities.is_some())
    });
    assert!(told.await, "{:?}", client.endpoints());
    let told: Vec<_> = known().flatten().collect();
    assert_eq!(
        (told[0].watches, told[1].watches),
        (Some(true), Some(false))
    );
    assert!(told.iter().all(|told| told.depth >= Some(200)), "{told:?}");
    let asked = || chain.requests().get("rpc_methods").copied();
    assert_eq!(asked(), Some(1));
    assert!(
        client
            .abilities()
            .await
            .to_string()
            .contains("watches transactions")
    );
    assert_eq!(asked(), Some(1), "it is known");
}

//! A vexed chain: silence, cuts, refusals, upgrades, lagging finality. Nothing waits for ever,
//! and no weight set is lost or made twice.

use std::{pin::pin, time::Duration};

use chain::weights::{self, SetWeightsError};
use localnet::chain::{BlockMode, CallError, Stall, Upgrade};
use tokio::time::timeout;

use crate::{
    NETUID, connect,
    set_weights::{request, set},
    start, wallet,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stalls_is_left_for_the_next() {
    let (first, second) = (start(2, |_| ()).await, start(2, |_| ()).await);
    let client = connect(&[&first, &second]).await;
    assert_eq!(client.endpoint().unwrap(), first.ws_url() + "/");
    first.stall(Stall::Everything);
    client.block_number().await.unwrap();
    assert_eq!(client.endpoint().unwrap(), second.ws_url() + "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_everywhere_ends_in_an_error_within_the_deadline() {
    let chain = start(2, |_| ()).await;
    let client = connect(&[&chain]).await;
    chain.stall(Stall::Everything);
    let limit = crate::deadlines().operation * 2;
    let snapshot = timeout(limit, client.snapshot(NETUID)).await;
    let error = snapshot.expect("an end").unwrap_err();
    assert_eq!(error.kind(), subnet::FaultKind::Outside, "{error}");
    chain.clear_faults();
    client.snapshot(NETUID).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_comes_back() {
    let chain = start(2, |_| ()).await;
    let client = connect(&[&chain]).await;
    let mut blocks = client.blocks();
    chain.produce_blocks(1).await.unwrap();
    chain.cut(Duration::from_millis(700));
    let snapshot = timeout(Duration::from_secs(15), client.snapshot(NETUID)).await;
    snapshot.expect("an end").unwrap();
    chain.set_block_mode(BlockMode::Every(Duration::from_millis(200)));
    blocks.next().await.unwrap();
    assert!(client.usage().connections >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_is_obeyed() {
    let chain = start(2, |_| ()).await;
    let client = connect(&[&chain]).await;
    chain.reset_requests();
    let error = CallError {
        method: None,
        code: -32005,
        message: "slow down".to_owned(),
        count: 1,
    };
    chain.fail_calls(error);
    let mut asked = pin!(client.block_number());
    // The only node is given a pause.
    let early = timeout(crate::deadlines().penalty / 17, &mut asked).await;
    assert!(early.is_err(), "it was asked again at once");
    asked.await.unwrap();
    chain.refuse_http(429, 1);
    client.reconnect();
    client.block_number().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_arrive_once_though_the_node_falls_silent_after_taking_them() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let wallet = wallet();
    chain.stall(Stall::Methods(["author_extrinsicUpdate".to_owned()].into()));
    let receipt = set(&client, &wallet, &[(1, 1.0)]).await;
    assert_eq!(receipt.attempts, 1, "signed once");
    assert_eq!(receipt.stored, Some(vec![(1, 65535)]));
    assert_eq!(
        receipt.block,
        u64::from(chain.block_number()),
        "in one block only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_arrive_through_cuts_and_passing_refusals() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let wallet = wallet();
    chain.cut(Duration::from_millis(300));
    set(&client, &wallet, &[(1, 1.0)]).await;
    // Custom(6) is the rate limit as the pool sees it.
    chain.fail_submissions(6, 1);
    let receipt = set(&client, &wallet, &[(2, 1.0)]).await;
    assert_eq!(receipt.stored, Some(vec![(2, 65535)]));
    chain.fail_submissions(1, 1);
    let error = weights::set(&client, &wallet, &request(&[(3, 1.0)]))
        .await
        .unwrap_err();
    assert!(matches!(error, SetWeightsError::Pool { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_survive_an_upgrade_between_signing_and_inclusion() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let wallet = wallet();
    set(&client, &wallet, &[(1, 1.0)]).await;
    chain
        .upgrade(Upgrade {
            newtypes: true,
            ..Upgrade::default()
        })
        .unwrap();
    let receipt = set(&client, &wallet, &[(2, 0.5), (3, 1.0)]).await;
    assert_eq!(receipt.stored, Some(vec![(2, 32768), (3, 65535)]));
    chain.set_block_mode(BlockMode::Manual);
    let submissions = || chain.requests()["author_submitAndWatchExtrinsic"];
    let upgrade = async {
        while submissions() < 3 {
            tokio::task::yield_now().await;
        }
        chain.upgrade(Upgrade::default()).unwrap();
        chain.set_block_mode(BlockMode::Every(Duration::from_millis(200)));
    };
    let upgrade = timeout(Duration::from_secs(30), upgrade);
    let (receipt, upgraded) = tokio::join!(set(&client, &wallet, &[(1, 1.0)]), upgrade);
    upgraded.expect("submitted once more");
    assert_eq!(receipt.stored, Some(vec![(1, 65535)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_extension_refuses_to_submit_by_name() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    chain
        .upgrade(Upgrade {
            unknown_extension: true,
            ..Upgrade::default()
        })
        .unwrap();
    let error = weights::set(&client, &wallet(), &request(&[(1, 1.0)]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("transaction extension"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_finality_delays_nothing_but_the_word_final() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    chain.set_finality_lag(50);
    let receipt = set(&client, &wallet(), &[(1, 1.0)]).await;
    assert_eq!(receipt.stored, Some(vec![(1, 65535)]));
    assert!(!receipt.finalized);
}

//! A simulated day: epochs pass, the node fails in every way it can, no weight window is missed.
//! `SIMULATED_WINDOWS` (of 100 blocks) makes it longer; a day has 72.

use std::time::Duration;

use chain::{
    Client, Deadlines, Endpoints,
    weights::{self, WeightsRequest},
};
use localnet::chain::{BlockMode, CallError, Chain, Gateway, Stall, Upgrade};

use crate::{NETUID, connect, deadlines, set_weights::request, start, start_other, wallet};

/// Blocks between weight sets.
const WINDOW: u32 = 100;

fn windows() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a longer run is asked for so")]
    let asked = std::env::var("SIMULATED_WINDOWS").ok();
    asked.map_or(9, |asked| asked.parse().unwrap())
}

/// Does one of many kinds of harm; some end by themselves.
fn harm(chain: &Chain, window: u32) -> &'static str {
    let call_error = |method: Option<&str>, code, message: &str, count| {
        let (method, message) = (method.map(ToOwned::to_owned), message.to_owned());
        chain.fail_calls(CallError {
            method,
            code,
            message,
            count,
        });
    };
    match window % 9 {
        0 => {
            chain.cut(Duration::from_millis(200));
            "cut"
        }
        1 => {
            chain.stall(Stall::Methods(["state_call".to_owned()].into()));
            "stall"
        }
        2 => {
            call_error(None, -32005, "too many requests", 1);
            "429 by RPC"
        }
        3 => {
            chain.refuse_http(429, 1);
            chain.cut(Duration::ZERO);
            "429 by HTTP"
        }
        4 => {
            chain
                .upgrade(Upgrade {
                    newtypes: window.is_multiple_of(2),
                    ..Upgrade::default()
                })
                .unwrap();
            "upgrade"
        }
        5 => {
            chain.set_finality_lag(20);
            "lagging finality"
        }
        6 => {
            call_error(
                Some("state_queryStorageAt"),
                4003,
                "State already discarded",
                1,
            );
            "discarded state"
        }
        7 => {
            chain.fail_submissions(6, 1);
            "refusing pool"
        }
        _ => {
            chain.stall(Stall::Methods(["author_extrinsicUpdate".to_owned()].into()));
            "silent pool"
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_is_missed_on_a_bad_day() {
    let chain = start(64, |subnet| {
        subnet.hyperparameters.weights_rate_limit = u64::from(WINDOW);
    })
    .await;
    let spare_url = chain.ws_url();
    let client = connect(&[&chain, &chain]).await;
    let wallet = wallet();
    let mut memory = Vec::new();
    let mut last = None;
    for window in 0..windows() {
        chain.produce_blocks(WINDOW - 1).await.unwrap();
        let fault = harm(&chain, window);
        let healing = async {
            // A stall lasts longer than one request may.
            tokio::time::sleep(deadlines().request / 2 * 3).await;
            chain.stall(Stall::Nothing);
        };
        let uid = 1 + u16::try_from(window % 60).unwrap();
        let request = WeightsRequest {
            window: Duration::from_secs(60),
            ..request(&[(uid, 1.0)])
        };
        let work = async {
            let snapshot = client.snapshot(NETUID).await;
            (snapshot, weights::set(&client, &wallet, &request).await)
        };
        let (snapshot, receipt) = if fault == "stall" {
            tokio::join!(work, healing).0
        } else {
            work.await
        };
        let snapshot = snapshot.unwrap_or_else(|error| panic!("window {window}, {fault}: {error}"));
        assert_eq!(snapshot.neurons.len(), 64);
        let receipt = receipt.unwrap_or_else(|error| panic!("window {window}, {fault}: {error}"));
        assert_eq!(receipt.stored, Some(vec![(uid, u16::MAX)]), "{fault}");
        if let Some(last) = last {
            let passed = receipt.block - last;
            assert!(
                (100..=103).contains(&passed),
                "window {window}, {fault}: {passed} blocks"
            );
        }
        last = Some(receipt.block);
        chain.clear_faults();
        chain.set_finality_lag(0);
        memory.push(resident());
    }
    chain.set_block_mode(BlockMode::Manual);
    let usage = client.usage();
    eprintln!(
        "{} windows, {usage:?}, RSS {:?} kB",
        windows(),
        (memory.first(), memory.last())
    );
    let per_day = usage.requests * 72 / u64::from(windows());
    assert!(per_day <= 4000, "{per_day} requests a day, faults included");
    assert_eq!(spare_url, chain.ws_url());
}

/// Makes trouble with three endpoints; at any time one of them is fresh, well and of our chain.
fn disturb(window: u32, [first, second]: [&Chain; 2], third: &Gateway, chains: [&Chain; 2]) {
    let [ours, another] = chains;
    first.clear_faults();
    second.set_lag(0);
    third.lead_to(ours);
    // The first refuses by turns, in other words each time.
    if matches!(window % 5, 1 | 2) {
        let (code, message) = [
            (-32603, "internal error"),
            (-32000, "upstream is away"),
            (-32005, "too many requests"),
            (4003, "Client error: UnknownBlock: State already discarded"),
        ][(window / 5 % 4) as usize];
        first.fail_calls(CallError {
            method: None,
            code,
            message: message.to_owned(),
            count: u32::MAX,
        });
    }
    if matches!(window % 5, 0 | 1) {
        second.set_lag(40);
    }
    if matches!(window % 5, 2 | 3) {
        third.lead_to(another);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_is_missed_when_one_endpoint_lags_one_refuses_and_one_changes_chain() {
    /// Blocks between snapshots, as a validator takes them.
    const SNAPSHOT: u32 = 25;
    let chain = start(64, |subnet| {
        subnet.hyperparameters.weights_rate_limit = u64::from(WINDOW);
    })
    .await;
    let second = chain.second_node().await.unwrap();
    let behind = chain.second_node().await.unwrap();
    let another = start_other(4).await;
    another.produce_blocks(500).await.unwrap();
    let third = Gateway::open(&behind).await.unwrap();
    let urls = [chain.ws_url(), second.ws_url(), third.ws_url()];
    let endpoints = Endpoints::resolve(None, &urls).unwrap();
    let patience = Deadlines {
        survey: Duration::from_secs(10),
        ..deadlines()
    };
    let client = Client::connect(&endpoints, patience).await.unwrap();
    let wallet = wallet();
    let mut last = None;
    for window in 0..windows() {
        disturb(window, [&chain, &second], &third, [&behind, &another]);
        for _ in 0..WINDOW / SNAPSHOT - 1 {
            chain.produce_blocks(SNAPSHOT).await.unwrap();
            let snapshot = client.snapshot(NETUID).await;
            let snapshot = snapshot.unwrap_or_else(|error| panic!("window {window}: {error}"));
            assert!(
                snapshot.block + 6 > chain.block_number().into(),
                "window {window}"
            );
        }
        chain.produce_blocks(SNAPSHOT - 1).await.unwrap();
        let uid = 1 + u16::try_from(window % 60).unwrap();
        let receipt = weights::set(&client, &wallet, &request(&[(uid, 1.0)])).await;
        let receipt = receipt.unwrap_or_else(|error| panic!("window {window}: {error}"));
        assert_eq!(
            receipt.stored,
            Some(vec![(uid, u16::MAX)]),
            "window {window}"
        );
        if let Some(last) = last {
            let passed = receipt.block - last;
            assert!(
                (100..=103).contains(&passed),
                "window {window}: {passed} blocks"
            );
        }
        last = Some(receipt.block);
    }
    assert_eq!(another.requests().get("state_call"), None);
    let usage = client.usage();
    eprintln!(
        "{} windows, {usage:?}, {:#?}",
        windows(),
        client.endpoints()
    );
    let per_day = usage.requests * 72 / u64::from(windows());
    assert!(per_day <= 4000, "{per_day} requests a day, faults included");
}

/// Returns the memory this process (client and chain) holds, in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

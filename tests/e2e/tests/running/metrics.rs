//! Metrics and probes of a running validator, as those who scrape it see them.

use std::{collections::BTreeMap, time::Duration};

use e2e::limit::LIMIT;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::timeout;

use crate::{
    operator::ask,
    proc::workers,
    world::{World, readings, stop},
};

/// Returns the metrics at an address, each with its value.
async fn scrape(address: &str) -> BTreeMap<String, f64> {
    let answer = ask(address, "/metrics", "localhost").await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    readings(body)
}

/// Scrapes until the metrics are as they should be; returns them.
async fn scraped(
    world: &World,
    address: &str,
    what: &str,
    holds: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> BTreeMap<String, f64> {
    let waiting = async {
        loop {
            let metrics = scrape(address).await;
            if holds(&metrics) {
                return metrics;
            }
        }
    };
    let Ok(metrics) = timeout(LIMIT, waiting).await else {
        panic!("never scraped: {what}; the log:\n{}", world.log_text("a"));
    };
    metrics
}

fn value(metrics: &BTreeMap<String, f64>, name: &str) -> f64 {
    let name = format!("finetune_vali_{name}");
    metrics.get(&name).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_probes_are_served_from_the_first_second() {
    let world = World::start("metrics", Duration::from_millis(500)).await;
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let flags = ["--metrics-addr", &address, "--sync-blocks", "1"];
    let mut validator = world.running("a", &flags);
    let probe = async |path: &str| ask(&address, path, "localhost").await;
    let mut starting = String::new();
    timeout(LIMIT, async {
        while !starting.starts_with("HTTP") {
            starting = probe("/ready").await;
        }
    })
    .await
    .unwrap();
    assert!(
        starting.contains(" 503 ") && starting.contains("starting: "),
        "{starting}"
    );
    assert!(probe("/live").await.contains(" 200 "));
    let first = scrape(&address).await;
    assert!(value(&first, "hub_received_bytes_total") < 1.0);

    // The counters follow the record within a second.
    let metrics = scraped(&world, &address, "steps of both competitions", |metrics| {
        ["l3", "s1"].iter().all(|competition| {
            value(
                metrics,
                &format!("steps_total{{competition=\"{competition}\"}}"),
            ) > 0.0
        })
    })
    .await;
    for part in [
        "loss{competition=\"l3\",uid=\"1\"}",
        "loss{competition=\"s1\",uid=\"2\"}",
        "evaluated_tokens_total",
        "store_bytes",
        "hub_answers_total{class=\"2xx\"}",
        "hub_answer_seconds_count",
        "hub_answer_seconds_sum",
        "device_memory_used_bytes{device=\"cpu\"}",
        "device_busy_seconds_total{device=\"cpu\"}",
    ] {
        assert!(value(&metrics, part) > 0.0, "{part} in {metrics:#?}");
    }
    let fetched = world.net.hub.bytes_sent("") as f64;
    let received = value(&metrics, "hub_received_bytes_total");
    assert!(
        (1.0..=fetched).contains(&received),
        "{received} of {fetched}"
    );
    let used = value(&metrics, "device_memory_used_bytes{device=\"cpu\"}");
    let total = value(&metrics, "device_memory_total_bytes{device=\"cpu\"}");
    assert!(used < total, "{used} of {total}");
    let text = probe("/metrics").await;
    for name in [
        "hub_received_bytes_total",
        "hub_answers_total",
        "hub_answer_seconds",
        "device_memory_used_bytes",
        "build_info",
    ] {
        assert!(
            text.contains(&format!("# HELP finetune_vali_{name} ")),
            "{text}"
        );
    }

    // A worker is lost.
    let crashed = "worker_restarts_total{device=\"cpu\",reason=\"crashed\"}";
    assert!(value(&metrics, crashed) < 1.0);
    for worker in workers(validator.id().unwrap()) {
        kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).unwrap();
    }
    scraped(
        &world,
        &address,
        "a worker in place of the lost one",
        |metrics| value(metrics, crashed) > 0.0,
    )
    .await;
    assert_eq!(stop(&mut validator).await, 0);
    // A port that another program has is named, with a way out.
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    let (code, text) = world.run("a", &["run", "--metrics-addr", &address]).await;
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("choose another --metrics-addr"), "{text}");
}

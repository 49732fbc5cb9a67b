//! Hubs and mirrors that serve less than the hub does: what can be fetched is fetched.

use std::time::Duration;

use http_client::Timeouts;
use hub::Hub;
use localnet::http::{Fault, Rule};
use model::Architecture;
use models::{Rejection, Verifier, store::Depth};

use crate::world::{World, claim, content_hash, golden, large_model, rules, verify_with};

/// More than one part of a download.
const VOCABULARY: u64 = 200_000;

#[tokio::test]
async fn a_large_file_comes_from_a_server_without_ranges() {
    for fault in [Fault::NoRanges, Fault::Gzip] {
        let world = World::new().await;
        let (files, hash) = large_model(VOCABULARY, 0.0);
        let commit = world.server.commit_model("miner/large", files);
        world.server.cdn.faults.set(vec![Rule::always(fault)]);
        let claim = claim("large", &commit, hash);
        let mut options = world.hub_options();
        // The server compresses the whole before it sends a byte.
        options.http.timeouts = Timeouts::default();
        let verifier = Verifier {
            hub: Hub::new(options).unwrap(),
            store: Some(world.store()),
        };
        let rules = rules(Architecture::Llama);
        let (outcome, report) = verify_with(&verifier, &claim, &rules).await;
        assert!(outcome.is_ok(), "{fault:?}: {report:?}");
        // Once, and the header before.
        let large = VOCABULARY * 192;
        assert!(
            report.bytes_fetched < large * 5 / 4,
            "{fault:?}: {report:?}"
        );
        assert_eq!(world.store().check(Depth::Bytes, |_| {}).unwrap(), []);
    }
}

#[tokio::test]
async fn the_hub_says_in_its_own_header_how_long_to_wait() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("busy", &files);
    let mut options = world.hub_options();
    options.http.retry.longest_pause = Duration::from_millis(500);
    let verifier = Verifier {
        hub: Hub::new(options).unwrap(),
        store: Some(world.store()),
    };
    let claim = claim("busy", &commit, content_hash(&files));
    let rule = Rule::always(Fault::RateLimit).times(1);
    world.server.faults().set(vec![rule]);
    let rules = rules(Architecture::Llama);
    let (outcome, _) = verify_with(&verifier, &claim, &rules).await;
    match outcome.unwrap_err() {
        Rejection::Retry { after, .. } => assert_eq!(after, Some(Duration::from_secs(2))),
        refused @ Rejection::Refused { .. } => panic!("{refused:?}"),
    }
    // Where the wait is short enough, it is part of the same verification.
    let rule = Rule::always(Fault::RateLimit).times(1);
    world.server.faults().set(vec![rule]);
    let mut options = world.hub_options();
    options.http.retry.longest_pause = Duration::from_secs(5);
    let patient = Verifier {
        hub: Hub::new(options).unwrap(),
        ..verifier
    };
    let (outcome, report) = verify_with(&patient, &claim, &rules).await;
    assert!(outcome.is_ok(), "{report:?}");
}

//! Two processes of one user with one hotkey, whatever folders they were started with.

use std::{collections::BTreeSet, time::Duration};

use localnet::chain::Stall;
use tokio::process::Command;

use crate::world::{World, stop};

/// What sends weights to the chain.
const SUBMISSION: &str = "author_submitAndWatchExtrinsic";

/// The emergency tool, with other folders than the validator's in every respect.
fn set_weights(world: &World, more: &[&str]) -> Command {
    let elsewhere = world.root().join("elsewhere");
    let mut command = world.command("b");
    command
        .env("XDG_DATA_HOME", elsewhere.join("data"))
        .env("XDG_STATE_HOME", elsewhere.join("state"))
        .env("XDG_RUNTIME_DIR", elsewhere.join("run"))
        .env("HOME", &elsewhere)
        .env("TMPDIR", std::env::temp_dir())
        .args(["set-weights", "--weights", r#"{"1": 1.0}"#])
        .args(more);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_processes_sets_weights_at_a_time() {
    let world = World::start("nonce", Duration::from_millis(500)).await;
    let chain = &world.net.chain;
    chain.stall(Stall::Methods(BTreeSet::from([SUBMISSION.to_owned()])));
    let submissions = || chain.requests().get(SUBMISSION).copied().unwrap_or(0);
    let mut validator = world.running("a", &["--sync-blocks", "1"]);
    world
        .until("a", "weights on their way", || submissions() > 0)
        .await;
    let before = submissions();
    let (code, text) = World::ended(set_weights(&world, &["--window", "3"])).await;
    assert_ne!(code, 0, "{text}");
    let holder = format!("in use by pid {}", validator.id().unwrap());
    assert!(text.contains(&holder), "{text}");
    assert_eq!(submissions(), before, "two transactions with one nonce");
    chain.stall(Stall::Nothing);
    assert_eq!(stop(&mut validator).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_validator_with_the_same_hotkey_is_denied() {
    let world = World::start("second", Duration::from_millis(500)).await;
    let mut first = world.running("a", &[]);
    world
        .until("a", "readiness", || {
            world
                .status("a")
                .is_some_and(|status| status.details.start.ready_at.is_some())
        })
        .await;
    // Other folders in every respect: the hotkey is the same.
    let elsewhere = world.root().join("elsewhere");
    let mut second = world.command("b");
    second
        .env("XDG_DATA_HOME", elsewhere.join("data"))
        .env("HOME", &elsewhere)
        .args(["run", "--device", "cpu", "--dtype", "float32"]);
    let (code, text) = World::ended(second).await;
    assert_eq!(code, 77, "{text}");
    assert!(text.contains("another validator runs"), "{text}");
    let holder = format!("pid {}", first.id().unwrap());
    assert!(text.contains(&holder), "{text}");
    assert_eq!(stop(&mut first).await, 0);
}

/// Blocks between the validator's weights: longer than it goes without a look at the chain.
const EPOCH: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_weights_of_another_machine_raise_the_alarm() {
    const ALARM: &str = "somebody else uses our hotkey";
    let world = World::start("twin", Duration::from_millis(200)).await;
    let epoch = EPOCH.to_string();
    let flags = ["--sync-blocks", "1", "--blocks_per_epoch", &epoch];
    let mut validator = world.running("a", &flags);
    world
        .until("a", "weights on the chain", || {
            !world.weights().1.is_empty()
        })
        .await;
    let (code, text) = World::ended(set_weights(&world, &["--json"])).await;
    assert_eq!(code, 0, "{text}");
    let (by_hand, weights) = world.weights();
    assert_eq!(weights, [(1, 65535)]);
    world
        .until("a", "the validator's next weights", || {
            world.weights().0 > by_hand
        })
        .await;
    // It counts from ours: so it has seen them, and asked itself whose they are.
    let (next, _) = world.weights();
    assert!(next >= by_hand + EPOCH, "{by_hand} to {next}");
    assert!(!world.log_text("a").contains(ALARM));

    world.set_foreign_weights("a").await;
    world
        .until("a", "the alarm", || world.log_text("a").contains(ALARM))
        .await;
    assert_eq!(stop(&mut validator).await, 0);
}

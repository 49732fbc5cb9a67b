//! What a running validator says of itself: typed, in time, and with an end to every problem.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use report::status::{Activity, Cause, Details, Status};
use shared::{Exit, clock, status::Health};
use subnet::{Netuid, Uid};
use tokio::process::Child;

use crate::{
    gate::Gate,
    world::{World, stop},
};

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_are_read_from_outside() {
    let world = World::start("status", Duration::from_millis(500)).await;
    let mut validator = world.running("a", &[]);
    world
        .until("a", "a step and a receipt in the status", || {
            world.status("a").is_some_and(|status| {
                let details = status.details;
                details.last_step.is_some() && details.receipt.is_some()
            })
        })
        .await;
    let (code, text) = world.run("a", &["status", "--json"]).await;
    assert_eq!(code, 0, "{text}");
    let status: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(status.pid, validator.id().unwrap());
    let details = &status.details;
    assert_eq!(details.netuid, Netuid(world.net.netuid));
    assert_eq!(details.uid, Some(Uid(0)));
    assert_eq!(details.device.as_deref(), Some("cpu"));
    assert!(details.start.ready_at.is_some());
    assert_eq!(details.start.attempt, 1);
    assert!(details.models.verified > 3, "{:?}", details.models);
    assert_eq!(details.models.refused, 1);
    let sources = details.sources.as_ref().unwrap();
    assert!(!sources.used.is_empty() && sources.failing.is_empty());
    let last = details.last_step.as_ref().unwrap();
    assert!(last.models.values().any(|model| model.weight.0 > 0.0));
    assert!(last.block <= details.block.unwrap());
    let receipt = details.receipt.as_ref().unwrap();
    assert!(receipt.block <= world.weights().0);
    assert!(!receipt.stored.is_empty());

    // The two files are written one after the other.
    world
        .until("a", "metrics of the same moment", || {
            let (before, metrics) = (world.status("a").unwrap(), world.metrics("a"));
            let Details {
                block,
                steps_done,
                weights,
                models,
                ..
            } = before.details;
            let weights = weights.unwrap();
            let expected = [
                ("written_timestamp_seconds", before.written_at as f64),
                ("block", block.unwrap() as f64),
                ("steps_done", steps_done as f64),
                ("weights_last_block", weights.last_block as f64),
                ("weights_age_blocks", weights.age_blocks as f64),
                ("models_verified", models.verified as f64),
                ("ready", 1.0),
                ("problem{cause=\"twin\"}", 0.0),
            ];
            expected
                .iter()
                .all(|(name, value)| metrics.get(&format!("finetune_vali_{name}")) == Some(value))
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    assert_eq!(
        world.status("a").unwrap().details.activity,
        Activity::Stopped
    );
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, Exit::Failed as i32, "{text}");
    assert!(text.contains("not running"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_chain_tells_how_it_goes() {
    let world = World::start("no-chain", Duration::from_millis(500)).await;
    let chain = world.net.chain.ws_url();
    let mut gate = Gate::to(chain.trim_start_matches("ws://").parse().unwrap());
    gate.bar().await;
    let away = ["--subtensor.chain_endpoint", &gate.ws_url()];
    let start = || world.status("a").map(|status| status.details.start);
    let mut validator = world.running("a", &away);
    world
        .until("a", "tries that failed", || {
            start().is_some_and(|start| start.failed_connections > 1)
        })
        .await;
    let status = world.status("a").unwrap();
    let network = "local".to_owned();
    assert_eq!(status.details.activity, Activity::Connecting { network });
    assert_eq!(status.health, Health::Yellow);
    assert!(status.details.alarms.contains_key(&Cause::Chain));
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, 0, "{text}");
    for told in ["connecting to local", "attempt 1", "Connection refused"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert_eq!(stop(&mut validator).await, Exit::Interrupted as i32);

    // The next one knows that it is not the first, and what went wrong before.
    let mut validator = world.running("a", &away);
    world
        .until("a", "the second attempt", || {
            start().is_some_and(|start| start.attempt == 2)
        })
        .await;
    let error = start().unwrap().last_error.unwrap();
    assert!(error.contains("Connection refused"), "{error}");
    assert_eq!(stop(&mut validator).await, Exit::Interrupted as i32);

    let problem = |cause| world.status("a").unwrap().details.alarms.remove(&cause);
    let mut validator = world.running("a", &away);
    world
        .until("a", "the third attempt, without a chain", || {
            start().is_some_and(|start| start.attempt == 3) && problem(Cause::Chain).is_some()
        })
        .await;
    gate.open();
    world
        .until("a", "the end of the start and of the problem", || {
            start().is_some_and(|start| start.ready_at.is_some()) && problem(Cause::Chain).is_none()
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);

    // Without a chain there is the snapshot of that run.
    gate.bar().await;
    let mut validator = world.running("a", &[&away[..], &["--offline"]].concat());
    world
        .until("a", "work on old data", || {
            start().is_some_and(|start| start.ready_at.is_some())
                && problem(Cause::OldChainData).is_some()
        })
        .await;
    assert_eq!(problem(Cause::Chain), None);
    assert_eq!(stop(&mut validator).await, 0);
    gate.open();
    let mut validator = world.running("a", &[&away[..], &["--offline"]].concat());
    world
        .until("a", "work on the chain again", || {
            start().is_some_and(|start| start.ready_at.is_some())
                && problem(Cause::OldChainData).is_none()
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let (code, text) = world
        .run("a", &["run", "--device", "cpu", "--wallet.hotkey", "none"])
        .await;
    assert_eq!(code, Exit::Config as i32, "{text}");
    let status = world.status("a").unwrap();
    assert_eq!(
        status.details.start.attempt, 1,
        "the one before became ready"
    );
    let failure = &status.details.alarms[&Cause::Failure];
    assert_eq!(failure.health, Health::Red);
    let error = status.details.start.last_error.as_ref();
    assert_eq!(error, Some(&failure.text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_status_is_not_believed() {
    let world = World::start("stale", Duration::from_millis(500)).await;
    let mut validator = world.running("a", &["--dont_set_weights"]);
    world
        .until("a", "green health", || {
            let status = world.status("a");
            status.is_some_and(|status| {
                status.health == Health::Green && status.details.start.ready_at.is_some()
            })
        })
        .await;
    // It hangs, and ten minutes pass.
    signal(&validator, Signal::SIGSTOP);
    let mut status = world.status("a").unwrap();
    let (pid, health) = (status.pid, status.health);
    assert_eq!((Some(pid), health), (validator.id(), Health::Green));
    status.written_at = clock::unix_seconds() - 600;
    let file = world.state("a").join(validator::service::STATUS);
    status.write(&file).unwrap();
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, Exit::Failed as i32, "{text}");
    assert!(text.contains("stale") && text.contains("10 min"), "{text}");
    let (code, text) = world.run("a", &["status", "--json"]).await;
    assert_eq!(code, Exit::Failed as i32, "{text}");
    let told: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(told.health, Health::Yellow);

    signal(&validator, Signal::SIGCONT);
    world
        .until("a", "a fresh status", || {
            world.status("a").unwrap().written_at > status.written_at
        })
        .await;
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(stop(&mut validator).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_told_and_forgotten_when_it_is_gone() {
    let world = World::start("twin", Duration::from_millis(150)).await;
    let flags = ["--sync-blocks", "1", "--blocks_per_epoch", "30"];
    let mut validator = world.running("a", &flags);
    world
        .until("a", "our weights on the chain", || {
            let status = world.status("a");
            status.is_some_and(|status| status.details.receipt.is_some())
        })
        .await;
    let alarm = || {
        world
            .status("a")
            .unwrap()
            .details
            .alarms
            .remove(&Cause::Twin)
    };
    assert_eq!(alarm(), None, "our own weights are not a twin's");

    // Elsewhere, somebody uses our hotkey.
    let foreign = world.set_foreign_weights("a").await;
    world.until("a", "the alarm", || alarm().is_some()).await;
    let told = alarm().unwrap();
    assert_eq!(told.health, Health::Red);
    let block = format!("block {foreign}");
    assert!(told.text.contains(&block), "{told:?}");

    world
        .until("a", "its end, after two quiet epochs", || alarm().is_none())
        .await;
    assert!(world.block() >= foreign + 60);
    assert_eq!(stop(&mut validator).await, 0);
}

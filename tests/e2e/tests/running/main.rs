//! The validator over months, in seconds: steps, restarts, records, weights, checks.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict; a long soak says where it is"
)]

mod alerts;
mod audit;
mod chaos;
mod check;
mod clock;
mod decay;
mod fork;
mod gate;
mod identity;
mod load;
mod mechanism;
mod metrics;
mod operator;
mod outage;
mod plan;
mod proc;
mod report;
mod same_hotkey;
mod secrets;
mod soak;
mod sources;
mod status;
mod tail;
mod world;
mod zoo;

use std::{io::Write as _, path::Path, time::Duration};

use ::report::{StepRecord, status::Cause};
use localnet::subnet::Options;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proc::{descendants, is_alive, workers};
use shared::status::Health;
use tail::Tail;
use world::{World, stop};

fn competitions(records: &[StepRecord]) -> Vec<(u64, &str)> {
    records
        .iter()
        .map(|record| (record.step, record.competition.0.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_validators_agree_and_anyone_can_check_it() {
    let world = World::start("agree", Duration::from_millis(500)).await;
    let mut first = world.running("a", &[]);
    world
        .until("a", "weights of both competitions on the chain", || {
            let (_, weights) = world.weights();
            // Which of the losing models are weighed depends on the samples that were drawn.
            weights.len() > 1 && world.records("a").len() > 1
        })
        .await;
    // It is overdue until it has seen its own weights on the chain.
    world
        .until("a", "green health", || {
            let status = world.status("a");
            status.is_some_and(|status| status.health == Health::Green)
        })
        .await;
    let (code, status) = world.run("a", &["status"]).await;
    assert_eq!(code, 0, "{status}");
    assert_eq!(stop(&mut first).await, 0);
    let records = world.records("a");
    assert_eq!(competitions(&records)[..2], [(0, "l3"), (1, "s1")]);
    let liar = &records[1].refused;
    assert!(liar[0].reason.contains("content hash"), "{liar:?}");

    // A second one, from nothing, on samples of the same block.
    let (code, log) = world
        .run(
            "b",
            &[
                "--genesis",
                "--dont_set_weights",
                "--device",
                "cpu",
                "--dtype",
                "float32",
                "--latest_cortex_samples",
                "12",
                "--min-samples",
                "4",
                "--max-steps",
                "2",
            ],
        )
        .await;
    assert_eq!(code, 0, "{log}");
    let walls = world.records("a").remove(0).sandbox.unwrap();
    assert!(walls.contains("seccomp"), "{walls}");
    let journals = [world.journal("a"), world.journal("b")];
    let [a, b] = journals.each_ref().map(|path| path.to_str().unwrap());
    let (code, text) = world.run("a", &["diff", a, b, "--json"]).await;
    assert_eq!(code, 0, "{text}");
    let pairs: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(pairs.as_array().unwrap().len(), 2, "{text}");

    let (code, text) = world.run("b", &["replay", b]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the ranking stands"), "{text}");

    // Paths mean what they mean where they are typed, not where the worker is.
    let relative = [
        "replay",
        "b/records/steps.jsonl",
        "--model_dir",
        "finetune-vali/models",
    ];
    let mut command = world.command("b");
    command.current_dir(world.root()).args(relative);
    let (code, text) = World::ended(command).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the ranking stands"), "{text}");

    let (code, text) = world.run("b", &["replay", b, "--uids", "999"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no loss was computed"), "{text}");
    assert!(!text.contains("stands"), "{text}");

    // Somebody else, who has the record and the samples but no model.
    std::fs::remove_dir_all(world.store()).unwrap();
    let (code, text) = world.run("b", &["replay", b, "--offline"]).await;
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("without --offline"), "{text}");
    let (code, text) = world.run("b", &["replay", b, "--min-free", "1MB"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("fetching"), "{text}");
    assert!(text.contains("the ranking stands"), "{text}");

    let forged = std::fs::read_to_string(b)
        .unwrap()
        .replacen("\"wins\":", "\"wins\":1", 1);
    shared::file::write_atomic(&journals[1], forged.as_bytes()).unwrap();
    let (code, text) = world.run("b", &["replay", b, "--step", "0"]).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("tampered"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_go_out_while_a_step_is_stuck() {
    let world = World::start("stuck", Duration::from_millis(500)).await;
    let mut validator = world.running("a", &["--sync-blocks", "1"]);
    world
        .until("a", "weights on the chain", || {
            !world.weights().1.is_empty()
        })
        .await;
    let pid = validator.id().unwrap();
    let stuck = workers(pid);
    assert!(!stuck.is_empty());
    for worker in &stuck {
        kill(Pid::from_raw(worker.cast_signed()), Signal::SIGSTOP).unwrap();
    }
    let below = descendants(pid);
    let steps = world.records("a").len();
    let (mut last, _) = world.weights();
    for _ in 0..2 {
        world
            .until("a", "the next weights", || world.weights().0 > last)
            .await;
        let (block, _) = world.weights();
        // Ten blocks apart as configured, and at most three late.
        assert!(block - last <= 13, "{last} to {block}");
        last = block;
    }
    assert!(
        world.records("a").len() <= steps + 1,
        "the step was not stuck"
    );
    assert_eq!(stop(&mut validator).await, 0);
    // The guards take the workers along.
    world
        .until("a", "the end of the workers", || {
            !below.iter().copied().any(is_alive)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_weights_are_followed_until_they_are_revealed() {
    let mut options = World::options("reveal", Duration::from_millis(150));
    options.hyperparameters.commit_reveal_weights_enabled = true;
    let world = World::with(options).await;
    let mut validator = world.running("a", &["--sync-blocks", "1"]);
    // Ten blocks between commits, twenty between epochs: each epoch reveals several.
    world
        .until("a", "three reveals", || {
            let log = world.log_text("a");
            log.matches("committed weights are revealed").count() > 2
        })
        .await;
    assert!(!world.weights().1.is_empty());
    let log = world.log_text("a");
    assert!(!log.contains("were not revealed"), "{log}");

    world.net.chain.pause_beacon(true);
    let alarm = || {
        world
            .status("a")
            .unwrap()
            .details
            .alarms
            .remove(&Cause::Reveal)
    };
    world.until("a", "the alarm", || alarm().is_some()).await;
    let alarm = alarm().unwrap();
    assert_eq!(alarm.health, Health::Red);
    assert!(alarm.text.contains("were not revealed"), "{alarm:?}");

    world.net.chain.pause_beacon(false);
    world
        .until("a", "its end, with the next reveal", || {
            let alarms = world.status("a").unwrap().details.alarms;
            !alarms.contains_key(&Cause::Reveal)
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
}

/// Mounts a small file system on its first argument, seen by nobody else, and runs the others.
const ON_SMALL_DISK: &str = r#"mount -t tmpfs -o size=2m none "$0" && exec "$@""#;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_state_no_record_and_no_weights() {
    let world = World::start("full", Duration::from_millis(300)).await;
    let state = world.state("a");
    std::fs::create_dir(&state).unwrap();
    let small_disk = || {
        let mut command = world.led("unshare", "a");
        let unshared = ["--user", "--map-root-user", "--mount", "sh", "-c"];
        command.args(unshared).arg(ON_SMALL_DISK).arg(&state);
        command
    };
    let allowed = small_disk().arg("true").output().await.unwrap();
    if !allowed.status.success() {
        return e2e::skip(&format!("no file system may be mounted here: {allowed:?}"));
    }
    let mut command = small_disk();
    command.arg(e2e::program("validator"));
    let mut validator = world.logged(command, "a", &["--sync-blocks", "1"]);
    // The disk as the validator sees it.
    let pid = validator.id().unwrap();
    let disk = Path::new("/proc").join(pid.to_string()).join("root");
    let disk = disk.join(state.strip_prefix("/").unwrap());
    let mut journal = Tail::new(&disk.join("records/steps.jsonl"));
    let mut records: Vec<StepRecord> = Vec::new();
    let mut look = |records: &mut Vec<StepRecord>| {
        for line in journal.lines() {
            records.push(serde_json::from_str(&line).unwrap());
        }
        records.len()
    };
    world
        .until("a", "two steps", || look(&mut records) > 1)
        .await;
    let filler = disk.join("filler");
    let fill = || {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&filler)
            .unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    };
    world
        .until("a", "the step postponed", || {
            fill();
            world.log_text("a").contains("the step is postponed")
        })
        .await;
    // What the last complete step decided goes out all the same, as often as it is due.
    for _ in 0..2 {
        let (last, _) = world.weights();
        world
            .until("a", "weights while the disk is full", || {
                fill();
                world.weights().0 > last
            })
            .await;
    }
    let kept = validator::state::peek(&disk).unwrap().unwrap();
    assert!(kept.step > 1);
    assert!(world.log_text("a").contains("No space left on device"));
    let before = look(&mut records);
    std::fs::remove_file(&filler).unwrap();
    world
        .until("a", "two more steps", || look(&mut records) > before + 1)
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let steps: Vec<u64> = records.iter().map(|record| record.step).collect();
    assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_judged_before_anything_is_opened() {
    let world = World::with(Options {
        block_time: None,
        ..Options::without_miners()
    })
    .await;
    for (flags, word) in [
        (&["run", "--device", "gpu"][..], "is none of auto, cpu"),
        (&["check", "--device", "gpu"], "is none of auto, cpu"),
        (
            &[
                "set-weights",
                "--weights",
                "{}",
                "--subtensor.chain_endpoint",
                "http://x",
            ],
            "ws://",
        ),
        (
            &[
                "inspect",
                "wallet",
                "--subtensor.chain_endpoint",
                "http://x",
            ],
            "ws://",
        ),
    ] {
        world.net.chain.reset_requests();
        let (code, text) = world.run("a", flags).await;
        assert_eq!(code, 2, "{flags:?}: {text}");
        assert!(text.contains(word), "{text}");
        assert!(world.net.chain.requests().is_empty(), "{flags:?}");
        assert!(!world.state("a").exists(), "{flags:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_command_line_runs_as_it_is() {
    let world = World::start("python", Duration::from_millis(500)).await;
    let (code, log) = world
        .run(
            "a",
            &[
                "--wallet.name",
                "validator",
                "--wallet.hotkey",
                "default",
                "--device",
                "cpu",
                "--wandb.off",
                "--offline",
                "--axon.port",
                "8091",
                "--logging.record_log",
                "--max-steps",
                "1",
            ],
        )
        .await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("mean nothing any more"), "{log}");
    let kept = std::fs::read_to_string(world.state("a").join("validator.log")).unwrap();
    assert!(kept.contains("mean nothing any more"), "{kept}");
    assert_eq!(world.records("a").len(), 1, "{log}");
    assert!(world.weights().1.is_empty(), "offline sets no weights");
}

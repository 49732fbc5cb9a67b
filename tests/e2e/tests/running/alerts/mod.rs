//! Every health rule on a running subnet: something is broken, its alert begins; it is mended, and the alert ends.
//!
//! What the metrics said in between is then shown to Prometheus' own promtool, with the alert rules that ship.

mod scene;
mod table;

use std::{collections::BTreeMap, path::Path, process::Stdio};

use e2e::{skip, workspace};
use report::{rules::RULES, status::Cause};
use shared::process;

use self::{
    scene::{MAX_AGE, Scene},
    table::{ELSEWHERE, RESTARTED, RUNNING},
};
use crate::world::{World, stop};

#[test]
fn every_rule_is_broken_and_mended_somewhere() {
    let here = RUNNING.iter().chain(&RESTARTED).map(|(cause, ..)| *cause);
    let elsewhere = ELSEWHERE.iter().map(|(cause, test, source)| {
        assert!(source.contains(&format!("async fn {test}(")), "{test}");
        *cause
    });
    let mut all: Vec<Cause> = here.chain(elsewhere).collect();
    all.sort_unstable();
    let mut rules = RULES.map(|rule| rule.cause);
    rules.sort_unstable();
    assert_eq!(all, rules);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_begins_with_its_fault_and_ends_with_it() {
    let mut scene = Scene::start().await;
    let notify = format!("cat >> {0}; echo >> {0}", scene.notices().display());
    let place = format!("{}/mine/vali", scene.server.url());
    let source = format!("{}/samples.jsonl", scene.source.url());
    let wandb = scene.world.net.wandb.url();
    let flags = [
        ["--sync-blocks", "1"],
        ["--publish", &place],
        ["--samples", &source],
        ["--samples-max-age", MAX_AGE],
        ["--wandb_project", "ours"],
        ["--wandb_entity", "me"],
        ["--wandb-url", &wandb],
        ["--notify", &notify],
    ];
    let flags = flags.concat();
    let mut validator = scene.validator(&flags);
    scene
        .world
        .until("a", "steps, and weights on the chain", || {
            scene.world.records("a").len() > 2 && !scene.world.weights().1.is_empty()
        })
        .await;
    for case in RUNNING {
        scene.play(case).await;
    }
    // It is over when it has been for two minutes, which begin with the notifier's next look.
    scene.advance(1);
    scene.called(None).await;
    assert_eq!(stop(&mut validator).await, 0);
    restarts(&mut scene).await;
    let log = scene.world.log_text("a");
    assert!(
        scene.missing.is_empty(),
        "{:#?}; the log:\n{log}",
        scene.missing
    );
    judge(scene.world.root(), &scene.told).await;
}

/// What begins and ends with starts.
async fn restarts(scene: &mut Scene) {
    let [failure, crash_loop, old_chain_data, disk] = RESTARTED;
    let mut told: BTreeMap<Cause, [f64; 3]> = BTreeMap::new();
    for (cause, ..) in RESTARTED {
        told.insert(cause, [scene.metric(cause), 0.0, 0.0]);
    }
    for _ in 0..3 {
        let mut validator = scene.validator(&["--wallet.hotkey", "none"]);
        let status = validator.wait().await.unwrap();
        assert_eq!(status.code(), Some(78), "{}", scene.world.log_text("a"));
    }
    for case in [failure, crash_loop] {
        told.get_mut(&case.0).unwrap()[1] = scene.begins(case).await;
    }
    scene.chain.bar().await;
    let mut validator = scene.validator(&["--offline", "--min-free", "1000TB"]);
    for case in [old_chain_data, disk] {
        told.get_mut(&case.0).unwrap()[1] = scene.begins(case).await;
    }
    for case in [failure, crash_loop] {
        told.get_mut(&case.0).unwrap()[2] = scene.ends(case).await;
    }
    assert_eq!(stop(&mut validator).await, 0);
    scene.chain.open();
    let mut validator = scene.validator(&["--offline", "--min-free", "1MB"]);
    // A process that has just begun says nothing yet of what it has not looked at.
    let looked = || {
        let details = scene.world.status("a").map(|status| status.details);
        details.is_some_and(|details| {
            details.start.ready_at.is_some()
                && details.disk.is_some_and(|disk| disk.keep_free < disk.free)
        })
    };
    scene
        .world
        .until("a", "a start with a chain and room", looked)
        .await;
    for case in [old_chain_data, disk] {
        told.get_mut(&case.0).unwrap()[2] = scene.ends(case).await;
    }
    assert_eq!(stop(&mut validator).await, 0);
    scene.told.extend(told);
}

/// Shows promtool what was told, for as long as each alert waits: it fires, and ends.
async fn judge(folder: &Path, told: &BTreeMap<Cause, [f64; 3]>) {
    let mut version = process::command("promtool");
    version.arg("--version").stdout(Stdio::null());
    if version.status().await.is_err() {
        return skip("promtool is not installed");
    }
    let file = folder.join("told.json");
    shared::file::write_atomic(&file, &serde_json::to_vec(told).unwrap()).unwrap();
    let mut check = process::command(workspace().join("scripts/check-alerts"));
    check.arg("--told").arg(&file);
    let (code, text) = World::ended(check).await;
    let judged = format!("{} of them as a validator told them", told.len());
    assert!(code == 0 && text.contains(&judged), "{text}");
}

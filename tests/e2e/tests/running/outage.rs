//! Outages in mid-run: of every sample source, and of W&B.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use e2e::wandb_client::{CLIENTS, environment, python, run};
use localnet::wandb::{Run, Wandb};
use report::{StepRecord, status::Cause, wandb::unsent_runs};
use tokio::process::Child;
use validator::step::scoring;

use crate::{
    gate::Gate,
    world::{World, stop},
};

const NEW_SAMPLES_EACH_BLOCK: [&str; 2] = ["--sync-blocks", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_its_sample_sources_and_notices_when_they_return() {
    let world = World::start("sources", Duration::from_millis(300)).await;
    let mut gate = Gate::to(world.net.feed.server.address);
    let source = format!("{}/samples.jsonl", gate.url());
    let flags = [&NEW_SAMPLES_EACH_BLOCK[..], &["--samples", &source]].concat();
    let mut validator = world.running("a", &flags);
    let cached = || -> Vec<bool> {
        let records = world.records("a");
        let ages = records.iter().map(|record| record.samples.cached_age);
        ages.map(|age| age.is_some()).collect()
    };
    world.until("a", "two steps", || cached().len() > 1).await;
    assert_eq!(cached().iter().position(|cached| *cached), None);

    gate.bar().await;
    world
        .until("a", "two steps on cached samples", || {
            cached().ends_with(&[true, true])
        })
        .await;
    world
        .until("a", "a word in the status", || {
            let problems = world.status("a").unwrap().problems.join("\n");
            problems.contains(&source) && problems.contains("uses its samples of 0 min ago")
        })
        .await;
    let log = world.log_text("a");
    assert!(
        log.contains("source fails: its cached samples are used"),
        "{log}"
    );

    gate.open();
    world
        .until("a", "two steps on fresh samples", || {
            cached().ends_with(&[false, false])
        })
        .await;
    world
        .until("a", "nothing to complain of", || {
            let alarms = world.status("a").unwrap().details.alarms;
            !alarms.contains_key(&Cause::Samples)
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    assert_unbroken(&world.records("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_young_enough_samples_it_skips_steps_and_still_sets_weights() {
    let world = World::start("skipped", Duration::from_millis(300)).await;
    let mut gate = Gate::to(world.net.feed.server.address);
    let source = format!("{}/samples.jsonl", gate.url());
    let flags = ["--samples", &source, "--samples-max-age", "0"];
    let flags = [&NEW_SAMPLES_EACH_BLOCK[..], &flags].concat();
    let mut validator = world.running("a", &flags);
    world
        .until("a", "steps, and weights on the chain", || {
            world.records("a").len() > 1 && !world.weights().1.is_empty()
        })
        .await;

    gate.bar().await;
    world
        .until("a", "a word in the status", || {
            let alarms = world.status("a").unwrap().details.alarms;
            let problem = alarms.get(&Cause::Step);
            problem
                .is_some_and(|problem| problem.text.contains("only 0 usable samples, 4 are needed"))
        })
        .await;
    let before = world.records("a").len();
    for _ in 0..2 {
        let (last, _) = world.weights();
        world
            .until("a", "the next weights", || world.weights().0 > last)
            .await;
    }
    assert_eq!(world.records("a").len(), before, "a step without samples");

    gate.open();
    world
        .until("a", "steps again", || world.records("a").len() > before + 1)
        .await;
    world
        .until("a", "the end of the problem", || {
            let alarms = world.status("a").unwrap().details.alarms;
            !alarms.contains_key(&Cause::Step)
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    // The scores of before the outage are those after it.
    assert_unbroken(&world.records("a"));
}

/// Every record follows from its losses, and begins with the weights with which the one before it
/// ended: an outage changes no score.
pub(crate) fn assert_unbroken(records: &[StepRecord]) {
    let mut weights = None;
    for record in records {
        if let Some(weights) = weights {
            assert_eq!(&record.weights_before, weights, "step {}", record.step);
        }
        let mut again = record.clone();
        scoring::score(&mut again);
        assert_eq!(again, *record);
        weights = Some(&record.weights_after);
    }
}

/// Returns how often each step stands in the runs.
fn rows(runs: &[Run]) -> BTreeMap<u64, usize> {
    let mut rows = BTreeMap::new();
    for line in runs.iter().flat_map(Run::history) {
        let (_, step) = line.split_once("\"_step\":").unwrap();
        let step: String = step
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        *rows.entry(step.parse().unwrap()).or_default() += 1;
    }
    rows
}

fn runs(server: &Wandb) -> Vec<Run> {
    server.edit(|store| {
        let project = store.get("me", "ours");
        project.map_or_else(Vec::new, |project| project.runs.clone())
    })
}

impl World {
    /// Returns a running validator that streams its steps to the W&B at this address.
    fn streaming(&self, state: &str, url: &str) -> Child {
        let project = ["--wandb_project", "ours", "--wandb_entity", "me"];
        let flags = [&NEW_SAMPLES_EACH_BLOCK[..], &project, &["--wandb-url", url]];
        self.running(state, &flags.concat())
    }

    /// Returns each step that was recorded, once.
    fn steps(&self, state: &str) -> BTreeMap<u64, usize> {
        let records = self.records(state);
        records.iter().map(|record| (record.step, 1)).collect()
    }

    /// Returns the folders of the W&B runs that have not arrived.
    fn unsent(&self, state: &str) -> Vec<PathBuf> {
        unsent_runs(&self.state(state))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_wandb_outage_arrive_afterwards() {
    let world = World::start("wandb", Duration::from_millis(300)).await;
    let mut gate = Gate::to(world.net.wandb.server.address);
    let mut validator = world.streaming("a", &gate.url());
    let arrived = || rows(&runs(&world.net.wandb)).len();
    world.until("a", "a row", || arrived() > 0).await;

    gate.bar().await;
    let before = world.records("a").len();
    world
        .until("a", "steps in the outage", || {
            world.records("a").len() > before + 2 && world.log_text("a").contains("W&B is away")
        })
        .await;
    assert!(arrived() <= before, "through a barred gate");
    gate.open();
    world
        .until("a", "the rows of the outage", || arrived() > before + 2)
        .await;
    // It learns that they arrived a moment after they did.
    world
        .until("a", "word of the return", || {
            world.log_text("a").contains("W&B is back")
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let runs = runs(&world.net.wandb);
    assert_eq!(rows(&runs), world.steps("a"));
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].exit_code, Some(0));
    assert!(world.unsent("a").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_wandb_outage_its_rows_are_on_disk_for_the_real_clients() {
    let world = World::start("wandb-killed", Duration::from_millis(300)).await;
    let mut gate = Gate::to(world.net.wandb.server.address);
    let mut validator = world.streaming("a", &gate.url());
    world
        .until("a", "a row", || !rows(&runs(&world.net.wandb)).is_empty())
        .await;
    gate.bar().await;
    let before = world.records("a").len();
    let kept = || {
        let journal = world.unsent("a")[0].join("history.jsonl");
        std::fs::read_to_string(journal).unwrap().lines().count()
    };
    world
        .until("a", "rows on disk in the outage", || kept() > before + 1)
        .await;
    validator.kill().await.unwrap();

    let (steps, kept) = (world.steps("a"), kept());
    // The record of the last step may have been written, and its row not.
    let steps: BTreeMap<u64, usize> = steps.into_iter().take(kept).collect();
    let unsent = world.unsent("a");
    assert_eq!(unsent.len(), 1);
    for (version, extra) in CLIENTS {
        let Some(python) = python(version, extra).await else {
            continue;
        };
        let server = Wandb::start(0, &[]).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let url = server.url();
        let environment = environment(&url, home.path().to_str().unwrap());
        let arguments = ["-m", "wandb", "sync", unsent[0].to_str().unwrap()];
        run(&python, &arguments, &environment).await.unwrap();
        assert_eq!(rows(&runs(&server)), steps, "{version}");
        // What the client left of its own does not concern the next one.
        for entry in std::fs::read_dir(&unsent[0]).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".wandb.sync") {
                std::fs::remove_file(path).unwrap();
            }
        }
        eprintln!("wandb {version}: syncs the run of a killed validator");
    }
}

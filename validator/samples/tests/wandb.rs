//! Samples from W&B, and our rows to it, over the loopback stand-in with its faults.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{sync::Arc, time::Duration};

use localnet::{
    http::{Fault, Rule},
    samples::generate,
    wandb::Wandb,
};
use report::wandb::{
    Logger, LoggerSettings,
    row::{Cell, Row},
};
use samples::{Fetcher, filter::Filter, hub, wandb};

fn fetcher(server: &Wandb, spec: &str, cache: &std::path::Path) -> Fetcher {
    Fetcher::new(samples::FetcherSettings {
        sources: vec![spec.parse().unwrap()],
        minimum: 1,
        cache: Some(cache.to_owned()),
        max_age: Duration::from_secs(3600),
        filter: Filter::default(),
        http_token: None,
        hub: hub::HubAccess::default(),
        wandb: wandb::WandbAccess {
            base_url: server.url().parse().unwrap(),
            ..Default::default()
        },
    })
    .unwrap()
}

#[tokio::test]
async fn a_bad_run_is_skipped_and_named_and_the_others_are_read() {
    // Two runs of 64 conversations and one of 22.
    let server = Wandb::start(0, &generate(7, 150)).await.unwrap();
    server.edit(|store| {
        let project = store.project("cortex-t", "multi-modality");
        project.runs[1].broken = true;
        project.runs[2].state = "finished".into();
    });
    let cache = tempfile::tempdir().unwrap();
    let pool = fetcher(&server, "wandb:cortex-t/multi-modality", cache.path())
        .fetch(100, 1)
        .await;
    let set = pool.draw(100, 1).unwrap();
    let duplicates = pool.reports[0]
        .dropped
        .0
        .get("duplicate")
        .copied()
        .unwrap_or_default();
    assert_eq!(
        set.samples.len() as u64 + duplicates,
        64,
        "{:?}",
        pool.reports
    );
    let notes = pool.reports[0].notes.join("\n");
    assert!(
        notes.contains("run c0r7ex01: W&B") && notes.contains("502"),
        "{notes}"
    );
    assert!(
        set.samples
            .iter()
            .all(|sample| sample.origin.contains("c0r7ex00"))
    );
}

#[tokio::test]
async fn a_hidden_project_says_what_to_do() {
    let server = Wandb::start(0, &[]).await.unwrap();
    let cache = tempfile::tempdir().unwrap();
    let fetcher = fetcher(&server, "wandb:nobody/nothing", cache.path());
    let fault = fetcher.fetch(5, 1).await.draw(5, 1).unwrap_err();
    assert!(
        fault
            .to_string()
            .contains("shows no project nobody/nothing"),
        "{fault}"
    );
    assert!(fault.to_string().contains("WANDB_API_KEY"), "{fault}");
}

fn settings(server: &Wandb, folder: &std::path::Path) -> LoggerSettings {
    LoggerSettings {
        base_url: server.url().parse().unwrap(),
        key: Some("k".repeat(40)),
        entity: Some("me".into()),
        project: "ours".into(),
        folder: folder.to_owned(),
        max_steps_per_run: Some(3),
        name: "validator-7".into(),
        config: vec![("uid".into(), "7".into())],
        sign: Some(Arc::new(|id| id.iter().rev().copied().collect())),
    }
}

fn row(step: u64) -> Row {
    let losses = [("1", 2.5 + step as f64), ("2", f64::INFINITY)];
    let map = losses
        .into_iter()
        .map(|(uid, loss)| (uid.to_owned(), Cell::Number(loss)))
        .collect();
    Row::from([("uid_data".into(), Cell::Map(map))])
}

#[tokio::test]
async fn rows_survive_an_outage_neither_lost_nor_doubled() {
    let server = Wandb::start(0, &[]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Every request of the first seconds fails; the third attempt of each gets through.
    server.server.faults.add(Rule {
        times: Some(2),
        ..Rule::always(Fault::Unavailable)
    });
    let mut logger = Logger::new(settings(&server, folder.path()));
    for step in 10..14 {
        logger.log(step, row(step)).unwrap();
    }
    logger.finish(0, Duration::from_secs(60)).await;

    let runs = server.edit(|store| store.get("me", "ours").unwrap().runs.clone());
    assert_eq!(runs.len(), 2, "rotated after three steps");
    let mut steps: Vec<u64> = Vec::new();
    for run in &runs {
        assert_eq!(run.exit_code, Some(0));
        assert_eq!(run.state, "finished");
        let signature: String = run.config["signature"]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        let reversed: Vec<u8> = run.name.bytes().rev().collect();
        assert_eq!(signature, hex::encode(reversed));
        for line in run.history() {
            assert!(line.contains("\"2\":Infinity"), "{line}");
            let (_, step) = line.split_once("\"_step\":").unwrap();
            let step: String = step.chars().take_while(char::is_ascii_digit).collect();
            steps.push(step.parse().unwrap());
        }
    }
    steps.sort_unstable();
    assert_eq!(steps, [10, 11, 12, 13]);
    assert!(report::wandb::unsent_runs(folder.path()).is_empty());
}

#[tokio::test]
async fn a_refused_key_keeps_the_rows_on_disk() {
    let server = Wandb::start(0, &[]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = Some("too short for a key".into());
    let mut logger = Logger::new(LoggerSettings {
        key,
        ..settings(&server, folder.path())
    });
    logger.log(1, row(1)).unwrap();
    logger.finish(0, Duration::from_secs(60)).await;
    assert!(server.edit(|store| store.get("me", "ours").is_none()));
    assert_eq!(report::wandb::unsent_runs(folder.path()).len(), 1);
}

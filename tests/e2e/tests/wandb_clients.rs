//! The real W&B clients, oldest and newest that matter, against our writer and our stand-in.
//!
//! They come from PyPI into the target folder; where that is not reachable, the tests say so and
//! end.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{path::Path, time::Duration};

use e2e::wandb_client::{CLIENTS, KEY, environment, python, run};
use localnet::{samples::generate, wandb::Wandb};
use report::wandb::{
    Logger, LoggerSettings,
    row::{Cell, Row},
};
use serde_json::Value;

fn settings(server: &Wandb, folder: &Path, key: Option<&str>) -> LoggerSettings {
    LoggerSettings {
        base_url: server.url().parse().unwrap(),
        key: key.map(ToOwned::to_owned),
        entity: Some("me".into()),
        project: "ours".into(),
        folder: folder.to_owned(),
        max_steps_per_run: None,
        name: "validator-7".into(),
        config: vec![("uid".into(), "7".into())],
        sign: None,
    }
}

/// Logs three steps with numbers that JSON lacks and a text longer than a block of the log.
async fn log(settings: LoggerSettings) {
    let mut logger = Logger::new(settings);
    for step in 5..8 {
        let losses = [("1", 2.5), ("2", f64::INFINITY), ("3", f64::NAN)];
        let losses = losses
            .into_iter()
            .map(|(uid, loss)| (uid.to_owned(), Cell::Number(loss)));
        let row = Row::from([
            ("uid_data".into(), Cell::Map(losses.collect())),
            ("long".into(), "x".repeat(40_000).into()),
        ]);
        logger.log(step, row).unwrap();
    }
    logger.finish(0, Duration::from_secs(60)).await;
}

async fn read(python: &Path, server: &Wandb, home: &Path, project: &str) -> Vec<Value> {
    let script = e2e::workspace().join("tests/e2e/fixtures/read_runs.py");
    let arguments = [script.to_str().unwrap(), project];
    let url = server.url();
    let text = run(
        python,
        &arguments,
        &environment(&url, home.to_str().unwrap()),
    )
    .await
    .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn the_real_clients_read_what_the_stand_in_serves_and_what_we_stream() {
    for (version, extra) in CLIENTS {
        let Some(python) = python(version, extra).await else {
            continue;
        };
        let home = tempfile::tempdir().unwrap();
        let server = Wandb::start(0, &generate(3, 100)).await.unwrap();
        let runs = read(&python, &server, home.path(), "cortex-t/multi-modality").await;
        assert_eq!(runs.len(), 2, "{version}");
        let prompts = |run: &Value| {
            let row = run["rows"][0].as_object().unwrap();
            row.keys().filter(|key| key.starts_with("prompts.")).count()
        };
        assert_eq!(runs.iter().map(prompts).sum::<usize>(), 100, "{version}");

        log(settings(&server, home.path(), Some(KEY))).await;
        let runs = read(&python, &server, home.path(), "me/ours").await;
        assert_eq!(runs.len(), 1, "{version}");
        assert_eq!(runs[0]["state"], "finished");
        assert_eq!(runs[0]["config"]["uid"], 7);
        check_rows(version, runs[0]["rows"].as_array().unwrap());
        eprintln!("wandb {version}: reads the stand-in and our stream");
    }
}

#[tokio::test]
async fn the_real_clients_sync_what_we_kept_on_disk() {
    for (version, extra) in CLIENTS {
        let Some(python) = python(version, extra).await else {
            continue;
        };
        let home = tempfile::tempdir().unwrap();
        let server = Wandb::start(0, &[]).await.unwrap();
        log(settings(&server, home.path(), None)).await;
        assert!(
            server.edit(|store| store.get("me", "ours").is_none()),
            "nothing was sent yet"
        );
        let kept = report::wandb::unsent_runs(home.path());
        assert_eq!(kept.len(), 1);
        let url = server.url();
        let arguments = ["-m", "wandb", "sync", kept[0].to_str().unwrap()];
        let environment = environment(&url, home.path().to_str().unwrap());
        run(&python, &arguments, &environment).await.unwrap();
        let runs = server.edit(|store| store.get("me", "ours").unwrap().runs.clone());
        assert_eq!(runs.len(), 1, "{version}");
        assert_eq!(runs[0].exit_code, Some(0), "{version}");
        let strict = |line: &String| {
            let line = line
                .replace("Infinity", "\"inf\"")
                .replace("NaN", "\"nan\"");
            serde_json::from_str::<Value>(&line).unwrap()
        };
        check_rows(
            version,
            &runs[0].history().iter().map(strict).collect::<Vec<_>>(),
        );
        eprintln!("wandb {version}: syncs our offline run");
    }
}

fn check_rows(version: &str, rows: &[Value]) {
    let steps: Vec<f64> = rows
        .iter()
        .map(|row| row["_step"].as_f64().unwrap())
        .collect();
    assert_eq!(steps, [5.0, 6.0, 7.0], "{version}");
    for row in rows {
        // The server flattens what was sent nested; what was synced is seen as it was sent.
        let loss = |uid: &str| {
            let flat = row.get(format!("uid_data.{uid}"));
            flat.unwrap_or_else(|| &row["uid_data"][uid]).clone()
        };
        assert_eq!(loss("1"), 2.5, "{version}");
        assert_eq!(loss("2"), "inf", "{version}");
        assert_eq!(loss("3"), "nan", "{version}");
        assert_eq!(row["long"].as_str().unwrap().len(), 40_000, "{version}");
    }
}

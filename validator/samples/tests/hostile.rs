//! What strangers send: a bad run, row, line or file costs itself only, and is named.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::time::Duration;

use chain::wallet;
use localnet::{
    http::{Fault, Rule},
    samples::generate,
    wandb::{Run, Wandb},
};
use samples::{Fetcher, FetcherSettings, Pool, filter::Filter, hub, wandb};
use serde_json::{Value, json};
use subnet::Hotkey;

fn signed_by(hotkey: &Hotkey, message: &[u8], signature: &[u8]) -> bool {
    let signature = signature.try_into();
    signature.is_ok_and(|signature| wallet::verify(hotkey, message, signature))
}

async fn fetch(spec: &str, server: Option<&Wandb>) -> Pool {
    let mut access = wandb::WandbAccess {
        verify: Some(signed_by),
        ..Default::default()
    };
    if let Some(server) = server {
        access.base_url = server.url().parse().unwrap();
    }
    let settings = FetcherSettings {
        sources: vec![spec.parse().unwrap()],
        minimum: 1,
        cache: None,
        max_age: Duration::ZERO,
        filter: Filter::default(),
        http_token: None,
        hub: hub::HubAccess::default(),
        wandb: access,
    };
    Fetcher::new(settings).unwrap().fetch(1000, 1).await
}

/// Adds a run whose history is one line, sent as it is.
fn add(server: &Wandb, name: &str, config: Value, line: impl Into<String>) {
    let mut run = Run::new(name, name, config);
    run.files
        .insert("wandb-history.jsonl".into(), vec![line.into()]);
    server.edit(|store| store.project("cortex-t", "multi-modality").runs.push(run));
}

const PROJECT: &str = "wandb:cortex-t/multi-modality";

#[tokio::test]
async fn runs_full_of_rubbish_cost_only_themselves() {
    // One good run of 64 conversations.
    let server = Wandb::start(0, &generate(7, 64)).await.unwrap();
    let validator = || json!({"type": "validator"});
    let python = "{\"_step\":0,\"prompts.0\":\"nan\u{1}?\",\"responses.0\":\"r\",\"scores.0\":NaN,\"t\":-Infinity}";
    add(&server, "bare-nan", validator(), python);
    let types =
        r#"{"_step":0,"prompts.0":7,"responses.0":["r"],"prompts.1":null,"responses.1":"r"}"#;
    add(&server, "types", validator(), types);
    let missing = r#"{"_step":0,"prompts.2":"p","modality":"images"}"#;
    add(&server, "missing", validator(), missing);
    add(&server, "no-json", validator(), "\"_step\":0 oops");
    add(&server, "empty", validator(), "");
    let long = "x".repeat(100 << 20);
    let long = format!(r#"{{"_step":0,"prompts.0":"p","responses.0":"{long}"}}"#);
    add(&server, "huge", validator(), long);

    let pool = fetch(PROJECT, Some(&server)).await;
    let report = &pool.reports[0];
    let set = pool.draw(1000, 1).unwrap();
    let of_python = |origin: &str| origin.contains("bare-nan");
    let found = set.samples.iter().filter(|s| of_python(&s.origin)).count();
    assert_eq!(found, 1, "{report:?}");
    let duplicates = report.dropped.0.get("duplicate").unwrap_or(&0);
    assert_eq!(report.usable as u64 + duplicates, 65, "{report:?}");
    assert_eq!(report.dropped.0["run that could not be read"], 1);
    let notes = report.notes.join("\n");
    assert!(notes.contains("run huge: W&B"), "{notes}");
    assert!(notes.contains("bytes allowed"), "{notes}");
}

#[tokio::test]
async fn a_poisoned_config_is_no_signature() {
    let server = Wandb::start(0, &generate(7, 64)).await.unwrap();
    let row = r#"{"_step":0,"prompts.0":"false","responses.0":"coin"}"#;
    let honest = server.edit(|store| {
        let project = store.get("cortex-t", "multi-modality").unwrap();
        project.runs[0].config.clone()
    });
    for (name, hotkey, signature) in [
        ("no-text", json!(7), json!({"a": []})),
        (
            "no-hex",
            honest["hotkey"]["value"].clone(),
            json!("zz\u{1b}[2J"),
        ),
        // That of another run.
        (
            "stolen",
            honest["hotkey"]["value"].clone(),
            honest["signature"]["value"].clone(),
        ),
        (
            "long",
            honest["hotkey"]["value"].clone(),
            json!("ab".repeat(1 << 20)),
        ),
    ] {
        let config = json!({"type": "validator", "hotkey": hotkey, "signature": signature});
        add(&server, name, config, row);
    }
    let pool = fetch(&format!("{PROJECT}?signed=true"), Some(&server)).await;
    let report = &pool.reports[0];
    assert_eq!(
        report.dropped.0["run without a valid signature"], 4,
        "{report:?}"
    );
    assert!(
        report
            .notes
            .contains(&"run stolen: no valid signature".to_owned())
    );
    let set = pool.draw(1000, 1).unwrap();
    let honest = set.samples.iter().all(|s| s.origin.contains("c0r7ex00"));
    assert!(honest && !set.samples.is_empty());
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let server = Wandb::start(0, &generate(7, 64)).await.unwrap();
    server.server.faults.add(Rule::always(Fault::Endless));
    let pool = fetch(PROJECT, Some(&server)).await;
    let fault = pool.draw(10, 1).unwrap_err();
    assert!(fault.to_string().contains("sent more than"), "{fault}");
}

#[tokio::test]
async fn lines_of_a_file_are_bounded_and_words_of_strangers_do_not_steer_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        shared::file::write_atomic(&folder.path().join(name), text.as_bytes()).unwrap();
    };
    let good = r#"{"prompt":"p","response":"r"}"#;
    let long = format!("{{\"prompt\":\"{}\"}}", "x".repeat(17 << 20));
    write("a.jsonl", &format!("{long}\n{good}\n"));
    write("b\u{1b}[2J.jsonl", "{oops\n");
    let pool = fetch(&format!("jsonl:{}", folder.path().display()), None).await;
    let report = &pool.reports[0];
    assert_eq!(report.usable, 1, "{report:?}");
    assert_eq!(report.dropped.0["line longer than 16 MiB"], 1);
    assert_eq!(report.dropped.0["malformed line"], 1);
    let notes = report.notes.join("\n");
    assert!(
        notes.contains("a.jsonl line 1: longer than 16 MiB"),
        "{notes}"
    );
    assert!(notes.contains("b\u{fffd}[2J.jsonl line 1"), "{notes}");
}

//! Telling others: hooks, notification commands and addresses.

use std::{io::Write, os::unix::process::CommandExt, process::Stdio, time::Duration};

use nix::unistd::getpgrp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    notices::Notice,
    notify_target::{Delivery, NotifyTarget},
};

use crate::{
    config::Config,
    error::{Blame, Fault},
    trouble::Trouble,
    update::state::{Note, Outcome, Version},
};

const POST_LIMIT: Duration = Duration::from_secs(15);

/// Runs a hook of the operator's through the shell; exit code 75 means "not now".
pub(crate) fn run_hook(hook: &str, event: &str, version: &Version) -> Result<(), Fault> {
    let status = shell(hook, event, &version.commit)
        .env("SUPERVISOR_RELEASE", &version.release)
        .status()
        .map_err(|error| Fault::machine(&error))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(75) => Err(Fault::new(
            Blame::Outside,
            format!("the {event} hook says: not now"),
        )),
        _ => {
            let text = format!("the {event} hook `{hook}` refused ({status})");
            Err(Fault::new(Blame::Refused, text).on(&version.commit))
        }
    }
}

fn shell(line: &str, event: &str, commit: &str) -> std::process::Command {
    let mut command = shared::process::blocking_command("sh");
    command
        .args(["-c", line])
        .env("SUPERVISOR_EVENT", event)
        .env("SUPERVISOR_COMMIT", commit)
        .process_group(getpgrp().as_raw())
        // Our own standard output carries lines for the supervisor.
        .stdout(Stdio::from(std::io::stderr()));
    command
}

/// Runs the failure hook and tells every `--notify` what became of a version.
pub(crate) fn notify(config: &Config, note: &Note) -> Result<(), Fault> {
    let message = message(config, "note", note);
    let failure = !matches!(
        note.result,
        Outcome::Accepted | Outcome::AcceptedWithoutRestart
    );
    let hook = config.hooks.on_failure.iter().filter(|_| failure);
    let input = message.to_string();
    let mut first = Ok(());
    for line in hook {
        first = first.and(run_with_input(line, "note", &note.commit, &input));
    }
    let Note {
        result,
        commit,
        summary,
        reason,
        ..
    } = note;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let child = &config.child_name;
    let sentence = format!("supervisor of {child}: {result}, {commit} ({summary}){why}");
    first.and(tell(config, "note", commit, &message, &sentence))
}

/// Tells every `--notify` what is wrong, or no longer is.
pub(crate) fn call(config: &Config, notice: &Notice<Trouble>) -> Result<(), Fault> {
    let message = message(config, "notice", notice);
    let sentence = notice.sentence(format_args!("supervisor of {}", config.child_name));
    tell(config, "notice", "", &message, &sentence)
}

fn message(config: &Config, kind: &str, content: &impl Serialize) -> Value {
    json!({
        "child": config.child_name,
        "time": shared::clock::now().to_string(),
        kind: content,
    })
}

/// Tells each target, also after one that could not be told; returns the first failure.
fn tell(
    config: &Config,
    event: &str,
    commit: &str,
    message: &Value,
    sentence: &str,
) -> Result<(), Fault> {
    let mut first = Ok(());
    for text in &config.notify {
        let told = text
            .parse()
            .map_err(|why| Fault::new(Blame::Refused, format!("--notify: {why}")))
            .and_then(
                |target: NotifyTarget| match target.delivery(message.clone(), sentence) {
                    Delivery::Post { url, body } => post(url, &body),
                    Delivery::Run { line, input } => run_with_input(line, event, commit, &input),
                },
            );
        first = first.and(told);
    }
    first
}

fn run_with_input(line: &str, event: &str, commit: &str, text: &str) -> Result<(), Fault> {
    let mut child = shell(line, event, commit).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is not an error.
        let _ = stdin.write_all(text.as_bytes());
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    // The rest of the line may hold a secret.
    let program = line.split_whitespace().next().unwrap_or_default();
    Err(Fault::new(
        Blame::Outside,
        format!("`{program}` failed ({status})"),
    ))
}

fn post(url: &reqwest::Url, body: &Value) -> Result<(), Fault> {
    let outside = |error: reqwest::Error| {
        Fault::new(
            Blame::Outside,
            format!("could not notify: {}", error.without_url()),
        )
    };
    let client = reqwest::blocking::Client::builder()
        .timeout(POST_LIMIT)
        .build()
        .map_err(outside)?;
    let response = client
        .post(url.clone())
        .json(body)
        .send()
        .map_err(outside)?;
    response.error_for_status().map(drop).map_err(outside)
}

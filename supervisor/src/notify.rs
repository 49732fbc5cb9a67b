//! Telling others: hooks, notification commands and addresses.

use std::{io::Write, os::unix::process::CommandExt, process::Stdio, time::Duration};

use nix::unistd::getpgrp;

use crate::{
    config::Config,
    error::{Blame, Fault},
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

/// Runs the failure hook and tells every `--notify`.
pub(crate) fn notify(config: &Config, note: &Note) -> Result<(), Fault> {
    let text = serde_json::to_string(&serde_json::json!({
        "child": config.child_name,
        "time": shared::clock::now().to_string(),
        "note": note,
    }))
    .map_err(|error| Fault::machine(&error))?;
    let failure = !matches!(
        note.result,
        Outcome::Accepted | Outcome::AcceptedWithoutRestart
    );
    let hook = config.hooks.on_failure.iter().filter(|_| failure);
    let mut first = Ok(());
    for target in hook.chain(&config.notify) {
        let told = if target.starts_with("http://") || target.starts_with("https://") {
            post(target, &text)
        } else {
            run_with_input(target, &note.commit, &text)
        };
        if first.is_ok() {
            first = told;
        }
    }
    first
}

fn run_with_input(line: &str, commit: &str, text: &str) -> Result<(), Fault> {
    let mut child = shell(line, "note", commit).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is not an error.
        let _ = stdin.write_all(text.as_bytes());
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(Fault::new(
        Blame::Outside,
        format!("`{line}` failed ({status})"),
    ))
}

fn post(url: &str, text: &str) -> Result<(), Fault> {
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
    let request = client.post(url).header("content-type", "application/json");
    let response = request.body(text.to_owned()).send().map_err(outside)?;
    response.error_for_status().map(drop).map_err(outside)
}

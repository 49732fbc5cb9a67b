//! Looking before running: every part the validator needs, each with a verdict and a remedy.

mod hub;
mod machine;
mod measure;
mod outside;
mod runtime;

use std::fmt;

use serde::Serialize;
use shared::{
    Exit, Failure,
    file::{FileLock, LockError},
};

pub use self::{
    measure::{Capacity, Grade, Measured, Measurements, measure},
    runtime::metadata,
};
use super::Settings;
use crate::state;
use chain::ChainSnapshot;
use subnet::{FaultKind, Hotkey};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Ok,
    /// It works, and may not for long.
    Warn,
    /// The validator will not do its job.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub subject: &'static str,
    pub level: Level,
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Who is to blame for a failure.
    #[serde(skip)]
    pub fault: Option<FaultKind>,
}

impl Line {
    fn ok(subject: &'static str, detail: impl fmt::Display) -> Self {
        Self {
            subject,
            level: Level::Ok,
            detail: detail.to_string(),
            remedy: None,
            fault: None,
        }
    }

    fn warn(subject: &'static str, detail: impl fmt::Display, remedy: &str) -> Self {
        Self {
            level: Level::Warn,
            remedy: Some(remedy.to_owned()),
            ..Self::ok(subject, detail)
        }
    }

    /// A part that keeps the validator from doing its job.
    pub fn fail(
        subject: &'static str,
        kind: FaultKind,
        detail: impl fmt::Display,
        remedy: &str,
    ) -> Self {
        Self {
            level: Level::Fail,
            fault: Some(kind),
            ..Self::warn(subject, detail, remedy)
        }
    }
}

/// Returns the exit code of a report: that of the worst failure.
pub fn verdict(lines: &[Line]) -> Exit {
    let kinds = [FaultKind::Config, FaultKind::Machine, FaultKind::Outside];
    kinds
        .into_iter()
        .find(|kind| lines.iter().any(|line| line.fault == Some(*kind)))
        .map_or(Exit::Ok, FaultKind::exit)
}

/// Checks what needs neither network nor device: what a new release must accept.
pub fn configuration(settings: &Settings) -> Vec<Line> {
    let parameters = &settings.step.parameters;
    let competitions = parameters
        .schedules
        .iter()
        .map(|s| s.competitions.len())
        .sum::<usize>();
    vec![
        Line::ok(
            "subnet file",
            format_args!("subnet {}, {competitions} competitions", parameters.netuid),
        ),
        wallet(settings),
        Line::ok("eval-worker", settings.workers.program.display()),
    ]
}

/// Checks everything; `deep` reads every byte of the models.
pub async fn everything(settings: &Settings, deep: bool) -> Vec<Line> {
    // Side by side, each with its own deadline: one that is away does not hold up the others.
    let (chain, device, hub_and_store, mirrors, samples, wandb) = tokio::join!(
        outside::chain(settings),
        machine::device(settings),
        async {
            let answer = hub::ask_hub(settings).await;
            // One after the other: tokenizers go into the store.
            let store = machine::store(settings, deep).await;
            let hub = hub::hub(settings, answer.is_some()).await;
            [hub::clock_line(answer.as_ref()), hub, store]
        },
        hub::mirrors(settings),
        outside::samples(settings),
        outside::wandb(settings),
    );
    let (endpoints, snapshot) = chain;
    let mut lines = configuration(settings);
    lines.extend(endpoints);
    if let Some(snapshot) = &snapshot {
        lines.extend(outside::subnet(settings, snapshot));
        lines.extend(outside::neuron(settings, snapshot));
    }
    lines.extend(device);
    lines.push(machine::tracing());
    lines.push(machine::disk(settings));
    lines.push(machine::memory());
    lines.extend(hub_and_store);
    lines.extend(mirrors);
    lines.push(samples);
    lines.push(wandb);
    lines.push(state_line(settings, snapshot.as_ref()));
    lines
}

fn hotkey(settings: &Settings) -> Option<Hotkey> {
    settings.wallet.public_hotkey().ok().flatten()
}

fn wallet(settings: &Settings) -> Line {
    const SUBJECT: &str = "wallet";
    const REMEDY: &str = "name it with --wallet.name, --wallet.hotkey and --wallet.path";
    let path = settings.wallet.hotkey_file();
    if !path.is_file() {
        let detail = format!("there is no hotkey file {}", path.display());
        return Line::fail(SUBJECT, FaultKind::Config, detail, REMEDY);
    }
    match settings.wallet.public_hotkey() {
        Ok(Some(hotkey)) => Line::ok(SUBJECT, format_args!("hotkey {hotkey}")),
        Ok(None) => Line::warn(
            SUBJECT,
            format_args!("{} is encrypted", path.display()),
            "the password is asked for at each start; BT_WALLET_PASSWORD_FILE names a file with it",
        ),
        Err(error) => Line::fail(SUBJECT, FaultKind::Config, text(&error), REMEDY),
    }
}

fn state_line(settings: &Settings, snapshot: Option<&ChainSnapshot>) -> Line {
    const SUBJECT: &str = "state";
    let folder = settings.folder.display();
    match FileLock::try_acquire(&settings.folder.join("lock"), "validator check") {
        Err(LockError::Held { holder, .. }) => {
            return Line::ok(SUBJECT, format_args!("{folder}: in use by {holder}"));
        }
        Err(error) => {
            return Line::fail(
                SUBJECT,
                FaultKind::Machine,
                text(&error),
                "--state-dir names another folder",
            );
        }
        Ok(_) => {}
    }
    match state::peek(&settings.folder) {
        Err(problem) => Line::warn(
            SUBJECT,
            format_args!("{folder}: {problem}"),
            "it will be set aside, and the validator starts from the chain's consensus",
        ),
        Ok(None) => Line::ok(SUBJECT, format_args!("{folder}: none yet")),
        Ok(Some(state)) => {
            let theirs = (state.identity.netuid, state.identity.genesis.clone());
            let here = hotkey(settings).is_none_or(|hotkey| hotkey == state.identity.hotkey)
                && snapshot.is_none_or(|now| theirs == (now.netuid, now.genesis_hash.to_string()));
            if here {
                Line::ok(SUBJECT, format_args!("{folder}: step {}", state.step))
            } else {
                let detail = format!("{folder} belongs to another hotkey, subnet or chain");
                Line::fail(
                    SUBJECT,
                    FaultKind::Config,
                    detail,
                    "give this validator its own --state-dir",
                )
            }
        }
    }
}

fn text(error: &(dyn std::error::Error + 'static)) -> String {
    Failure::of(Exit::Failed, error).to_string()
}

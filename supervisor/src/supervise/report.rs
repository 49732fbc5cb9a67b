//! What `status` shows: a snapshot of the child and of its updates.

use serde::{Deserialize, Serialize};
use shared::status::{Health, SafePoint};

use super::Supervisor;
use crate::{
    child::{
        health,
        state::{Stage, Why},
    },
    update::state::Version,
};

/// The format of [`Report`]; fields are only added within one format.
pub const FORMAT: u32 = 1;

/// The answer to `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// See [`FORMAT`].
    pub format: u32,
    /// The child's name.
    pub name: String,
    /// The supervisor itself.
    pub supervisor: Process,
    /// The child.
    pub child: ChildReport,
    /// Its updates.
    pub update: UpdateReport,
    /// The child's log file.
    pub log: String,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// What `--version` says.
    pub version: String,
    /// Seconds since it began.
    pub uptime: u64,
    /// Who keeps it running in turn: pm2 or systemd, where that is known.
    #[serde(default)]
    pub manager: Option<String>,
}

/// How the child is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// running, starting, stopping, waiting, misconfigured, down
    pub state: String,
    /// Why it is not running.
    pub reason: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// The release that runs.
    pub release: Option<String>,
    /// Seconds since it was started or adopted.
    pub uptime: Option<u64>,
    /// Restarts after failures since the supervisor began.
    pub restarts: u64,
    /// How it last failed.
    pub last_failure: Option<String>,
    /// Its own words.
    pub says: Option<String>,
    /// From its status file: what it is doing.
    pub phase: Option<String>,
    /// From its status file: how it is.
    pub health: Option<Health>,
    /// From its status file: why it is not green.
    pub problems: Vec<String>,
    /// From its status file: whether a restart would hurt now.
    pub restart: Option<SafePoint>,
}

/// How its updates are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// idle, polling, building, testing, waiting, switching, probation, accepting, rolling-back
    pub phase: String,
    /// What it is doing just now.
    pub progress: Option<String>,
    /// The accepted version.
    pub accepted: Option<Version>,
    /// The way back.
    pub previous: Option<Version>,
    /// What is being tried.
    pub candidate: Option<Version>,
    /// What keeps us from being up to date.
    pub problem: Option<String>,
    /// Failed commits and why.
    pub quarantine: std::collections::BTreeMap<String, String>,
    /// When the remote last answered (RFC 3339).
    pub polled_at: Option<String>,
    /// Seconds until time alone changes something.
    pub next_in: Option<u64>,
    /// Whether updates are looked for.
    pub enabled: bool,
}

impl Supervisor {
    pub(super) fn report(&self) -> Report {
        Report {
            format: FORMAT,
            name: self.config.child_name.clone(),
            supervisor: Process {
                pid: std::process::id(),
                version: self.version.clone(),
                uptime: self.now().as_secs(),
                manager: self.config.manager.map(str::to_owned),
            },
            child: self.child_report(),
            update: self.update_report(),
            log: self
                .config
                .log
                .child(&self.config.child_name)
                .display()
                .to_string(),
        }
    }

    fn child_report(&self) -> ChildReport {
        let running = self.child.running();
        let status =
            running.and_then(|child| health::read_status(&self.config.home.status(), child.pid));
        let (state, reason) = describe(&self.child.stage, self.heard.speaks);
        ChildReport {
            state: state.to_owned(),
            reason,
            pid: running.map(|child| child.pid),
            release: running.map(|child| child.release.clone()),
            uptime: running.map(|child| self.now().saturating_sub(child.since).as_secs()),
            restarts: self.child.restarts,
            last_failure: self.child.last_failure.clone(),
            says: self.heard.status.clone(),
            phase: status.as_ref().map(|status| status.phase.clone()),
            health: status.as_ref().map(|status| status.health),
            problems: status
                .as_ref()
                .map(|s| s.problems.clone())
                .unwrap_or_default(),
            restart: status.map(|status| status.restart),
        }
    }

    fn update_report(&self) -> UpdateReport {
        let state = &self.update;
        let next = state
            .due
            .map(|due| due.saturating_sub(self.now()).as_secs());
        UpdateReport {
            phase: state.phase.name().to_owned(),
            progress: self
                .progress
                .clone()
                .or_else(|| state.awaits.as_ref().map(|what| format!("for {what}"))),
            accepted: state.accepted.clone(),
            previous: state.previous.clone(),
            candidate: state.candidate().cloned(),
            problem: state.problem.clone(),
            quarantine: state
                .quarantine
                .iter()
                .map(|(commit, why)| (commit.to_owned(), why.to_owned()))
                .collect(),
            polled_at: self.polled_at.map(|time| time.to_string()),
            next_in: next,
            enabled: self.config.policy.updates,
        }
    }
}

/// A child that does not speak sd_notify counts as running when it is up.
fn describe(stage: &Stage, speaks: bool) -> (&'static str, Option<String>) {
    match stage {
        Stage::Up(child) if child.ready || !speaks => ("running", None),
        Stage::Up(_) => ("starting", None),
        Stage::Stopping { .. } | Stage::Sweeping { .. } => ("stopping", None),
        Stage::Down(Why::BackOff { how, .. }) => ("waiting", Some(format!("{how}; trying again"))),
        Stage::Down(Why::Misconfigured) => {
            let text =
                "it says that its configuration is wrong; mend it, then `supervisor restart`";
            ("misconfigured", Some(text.to_owned()))
        }
        Stage::Down(Why::NothingBuilt) => ("down", Some("nothing is built yet".to_owned())),
        Stage::Down(Why::Replacing) => ("down", Some("a new one is being started".to_owned())),
        Stage::Down(Why::Halted) => ("down", Some("stopped".to_owned())),
    }
}

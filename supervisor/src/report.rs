//! What `status` shows, as it goes over the control socket.

use serde::{Deserialize, Serialize};
use shared::status::{Health, SafePoint, Status};

use crate::{
    child::{control::find_left_behind, group, health},
    home::Home,
    update::{
        journal::{self, JournalError},
        state::{UpdateState, Version},
    },
};

/// The format of [`Report`]; fields are only added within one format.
pub const FORMAT: u32 = 1;

/// The answer to `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// See [`FORMAT`].
    pub format: u32,
    pub name: String,
    /// Nothing where none runs, and the report is of what it left behind.
    pub supervisor: Option<ProcessReport>,
    pub child: ChildReport,
    pub update: UpdateReport,
    pub log: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    pub pid: u32,
    pub version: String,
    pub uptime: u64,
    /// Who keeps it running in turn: pm2 or systemd, where that is known.
    #[serde(default)]
    pub manager: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// running, starting, stopping, waiting, misconfigured, down
    pub state: String,
    /// Why it is not running.
    pub reason: Option<String>,
    pub pid: Option<u32>,
    pub release: Option<String>,
    /// Seconds since it was started or adopted.
    pub uptime: Option<u64>,
    /// The control group that it ends with as a whole, if it is in one.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Why there can't be one.
    #[serde(default)]
    pub no_cgroup: Option<String>,
    /// Restarts after failures since the supervisor began.
    pub restarts: u64,
    pub last_failure: Option<String>,
    pub says: Option<String>,
    /// From its status file: what it is doing.
    pub phase: Option<String>,
    /// From its status file: how it is.
    pub health: Option<Health>,
    /// From its status file: why it is not green.
    pub problems: Vec<String>,
    /// From its status file: whether a restart would hurt now.
    pub restart: Option<SafePoint>,
    /// From its status file: what only the child's own commands understand, passed on as it is.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// idle, polling, building, testing, waiting, switching, probation, accepting, rolling-back
    pub phase: String,
    /// What it is doing just now.
    pub progress: Option<String>,
    pub accepted: Option<Version>,
    pub previous: Option<Version>,
    pub candidate: Option<Version>,
    /// What keeps us from being up to date.
    pub problem: Option<String>,
    /// The operator's checkout, where versions are built from commits.
    #[serde(default)]
    pub checkout: Option<CheckoutReport>,
    pub quarantine: std::collections::BTreeMap<String, String>,
    /// When the remote last answered (RFC 3339).
    pub polled_at: Option<String>,
    /// Seconds until time alone changes something.
    pub next_in: Option<u64>,
    /// Whether updates are looked for.
    pub enabled: bool,
}

impl ChildReport {
    /// Says what ends with it.
    pub(crate) fn control_group(&self) -> String {
        match (&self.cgroup, &self.no_cgroup) {
            (Some(path), _) => format!("{path}: all that the child starts ends with it"),
            (None, Some(why)) => group::none(why),
            (None, None) => group::none("it was started outside"),
        }
    }

    /// What the child's status file says.
    pub(crate) fn of(status: Option<Status>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        Self {
            phase: Some(status.phase),
            health: Some(status.health),
            problems: status.problems,
            restart: Some(status.restart),
            details: status.details,
            ..Self::default()
        }
    }
}

impl UpdateReport {
    /// What the journal knows.
    pub(crate) fn of(state: &UpdateState) -> Self {
        let quarantine = state.quarantine.iter();
        Self {
            phase: state.phase.name().to_owned(),
            progress: None,
            accepted: state.accepted.clone(),
            previous: state.previous.clone(),
            candidate: state.candidate().cloned(),
            problem: state.problem.clone(),
            checkout: None,
            quarantine: quarantine
                .map(|(commit, why)| (commit.to_owned(), why.to_owned()))
                .collect(),
            polled_at: None,
            next_in: None,
            enabled: false,
        }
    }
}

impl Report {
    /// What can be told without a supervisor: its child may run on, and its journal stays.
    pub(crate) fn left_behind(home: &Home) -> Result<Self, JournalError> {
        let state = journal::read(&home.journal())?.unwrap_or_default();
        let child = find_left_behind(home).into_iter().next();
        let child = match child {
            Some(found) => ChildReport {
                state: "running".to_owned(),
                reason: Some("it was left running, and nobody restarts it".to_owned()),
                pid: Some(found.pid),
                cgroup: group::holding(home, found.pid),
                release: Some(found.release),
                ..ChildReport::of(health::read_status(&home.status(), found.pid))
            },
            None => ChildReport {
                state: "down".to_owned(),
                ..ChildReport::default()
            },
        };
        Ok(Self {
            format: FORMAT,
            name: home.child_name(),
            supervisor: None,
            child,
            update: UpdateReport::of(&state),
            log: home.child_log().display().to_string(),
        })
    }
}

/// The checkout is never moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutReport {
    pub path: std::path::PathBuf,
    /// How many commits of the accepted version it lacks, where that can be told.
    #[serde(default)]
    pub behind: Option<u64>,
}

//! What `status` shows, as it goes over the control socket.

use serde::{Deserialize, Serialize};
use shared::status::{Health, SafePoint};

use crate::update::state::Version;

/// The format of [`Report`]; fields are only added within one format.
pub const FORMAT: u32 = 1;

/// The answer to `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// See [`FORMAT`].
    pub format: u32,
    pub name: String,
    pub supervisor: ProcessReport,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// running, starting, stopping, waiting, misconfigured, down
    pub state: String,
    /// Why it is not running.
    pub reason: Option<String>,
    pub pid: Option<u32>,
    pub release: Option<String>,
    /// Seconds since it was started or adopted.
    pub uptime: Option<u64>,
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
    pub quarantine: std::collections::BTreeMap<String, String>,
    /// When the remote last answered (RFC 3339).
    pub polled_at: Option<String>,
    /// Seconds until time alone changes something.
    pub next_in: Option<u64>,
    /// Whether updates are looked for.
    pub enabled: bool,
}

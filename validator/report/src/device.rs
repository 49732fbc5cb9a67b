//! What the workers take of a device, and how much of the time they compute on it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A device and the worker there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStatus {
    /// Memory that is taken, in bytes: of a GPU by all processes, of the CPU by the worker. None until a worker says so.
    pub memory_used: Option<u64>,
    /// All there is; of the CPU, the most that the worker may take.
    pub memory_total: Option<u64>,
    /// When it was first asked for something in this run.
    pub since: Option<Timestamp>,
    /// Since when it computes, if it does.
    pub busy_since: Option<Timestamp>,
    /// Time that it computed before, in seconds.
    pub busy_seconds: f64,
    /// Workers that were replaced in this run.
    pub replaced: u64,
    /// Why the last of them was.
    pub why_replaced: Option<String>,
}

impl DeviceStatus {
    /// Returns the share of its memory that is taken.
    pub fn memory_share(&self) -> Option<f64> {
        let (used, total) = self.memory_used.zip(self.memory_total)?;
        Some((used as f64 / total.max(1) as f64).min(1.0))
    }

    /// Returns the seconds since it began to compute, if it does.
    pub fn busy_for(&self, now: Timestamp) -> Option<f64> {
        let since = self.busy_since?;
        Some(now.duration_since(since).as_secs_f64().max(0.0))
    }

    /// Returns the share of the time that it computed, since it was first asked for something.
    pub fn busy_share(&self, now: Timestamp) -> Option<f64> {
        let known = now.duration_since(self.since?).as_secs_f64();
        let busy = self.busy_seconds + self.busy_for(now).unwrap_or(0.0);
        (known > 0.0).then(|| (busy / known).min(1.0))
    }
}

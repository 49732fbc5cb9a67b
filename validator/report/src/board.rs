//! The board: what the validator says of itself at this moment, to its supervisor and to people.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use shared::{
    clock, notify,
    status::{self, Health, SafePoint, Status},
};
use tokio::sync::watch;

/// What is known to be wrong, by a key that its finder clears again.
type Problems = BTreeMap<&'static str, (Health, String)>;

/// The board. Tasks write on it, the admin task reads it.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    phase: String,
    problems: Problems,
    facts: BTreeMap<&'static str, Value>,
    /// Reasons why a restart would hurt, each with the time until which at the latest.
    holds: BTreeMap<&'static str, (String, Option<u64>)>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Board {
    /// Says what is being done.
    pub fn phase(&self, phase: &str) {
        if self.lock().phase == phase {
            return;
        }
        phase.clone_into(&mut self.lock().phase);
        notify::status(phase);
        self.changed();
    }

    /// Says that something is wrong, until [`Board::well`] takes it back.
    pub fn problem(&self, key: &'static str, health: Health, text: impl std::fmt::Display) {
        let problem = (health, text.to_string());
        if self.lock().problems.insert(key, problem.clone()) != Some(problem) {
            self.changed();
        }
    }

    /// Takes a problem back.
    pub fn well(&self, key: &'static str) {
        if self.lock().problems.remove(key).is_some() {
            self.changed();
        }
    }

    /// Notes a fact for people and dashboards.
    pub fn fact(&self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        if self.lock().facts.insert(key, value.clone()) != Some(value) {
            self.changed();
        }
    }

    /// Says that a restart would hurt now, at the latest until `until` (seconds since 1970).
    pub fn hold(&self, key: &'static str, reason: impl Into<String>, until: Option<u64>) {
        let hold = (reason.into(), until);
        if self.lock().holds.insert(key, hold.clone()) != Some(hold) {
            self.changed();
        }
    }

    /// Takes a hold back.
    pub fn release(&self, key: &'static str) {
        if self.lock().holds.remove(key).is_some() {
            self.changed();
        }
    }

    /// Returns a receiver that sees every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns the board as the status file has it.
    pub fn status(&self, version: &str) -> Status {
        let inner = self.lock();
        let health = inner.problems.values().map(|(health, _)| *health).max();
        let reasons: Vec<&str> = inner
            .holds
            .values()
            .map(|(reason, _)| reason.as_str())
            .collect();
        Status {
            format: status::FORMAT,
            pid: std::process::id(),
            version: version.to_owned(),
            written_at: clock::unix_seconds(),
            phase: inner.phase.clone(),
            health: health.unwrap_or(Health::Green),
            problems: inner
                .problems
                .values()
                .map(|(_, text)| text.clone())
                .collect(),
            restart: SafePoint {
                safe: inner.holds.is_empty(),
                reason: reasons.join("; "),
                until: inner.holds.values().filter_map(|(_, until)| *until).max(),
            },
            details: inner
                .facts
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

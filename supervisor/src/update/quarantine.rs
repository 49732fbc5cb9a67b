//! Commits that failed: not tried again until a newer one comes or the operator insists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const MAX_ENTRIES: usize = 64;

/// Failed commits, each with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quarantine {
    reasons: BTreeMap<String, String>,
}

impl Quarantine {
    /// Adds a commit. The oldest names make room when too many have failed in a row.
    pub fn add(&mut self, commit: &str, reason: &str) {
        while self.reasons.len() >= MAX_ENTRIES {
            self.reasons.pop_first();
        }
        self.reasons.insert(commit.to_owned(), reason.to_owned());
    }

    /// Returns whether the commit has failed before.
    pub fn contains(&self, commit: &str) -> bool {
        self.reasons.contains_key(commit)
    }

    /// Returns a sentence on why the commit is not tried.
    pub fn reason(&self, commit: &str) -> Option<String> {
        let short = commit.get(..12).unwrap_or(commit);
        let reason = self.reasons.get(commit)?;
        Some(format!("{short} is quarantined: {reason}"))
    }

    /// Forgets all: a newer version was accepted.
    pub fn clear_all(&mut self) {
        self.reasons.clear();
    }

    /// Iterates over commits and reasons.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons
            .iter()
            .map(|(commit, reason)| (commit.as_str(), reason.as_str()))
    }
}

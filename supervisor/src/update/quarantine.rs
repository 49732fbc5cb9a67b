//! Commits that failed: not tried again until what is built, or what builds it, is another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::version::Version;

const MAX_ENTRIES: usize = 64;

/// Failed commits, each with the reason and with what was built. A commit on top that changes
/// nothing of that (documentation) fails as well; a new toolchain, other features or a local fix
/// may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    #[serde(rename = "quarantine", default)]
    reasons: BTreeMap<String, String>,
    /// By commit, see [`Version::build`]. Supervisors that do not know it go by the commit.
    #[serde(
        rename = "quarantined_builds",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    builds: BTreeMap<String, String>,
}

impl Quarantine {
    /// Adds a version. The oldest names make room when too many have failed in a row.
    pub fn add(&mut self, version: &Version, reason: &str) {
        while self.reasons.len() >= MAX_ENTRIES {
            if let Some((commit, _)) = self.reasons.pop_first() {
                self.builds.remove(&commit);
            }
        }
        let commit = &version.commit;
        self.reasons.insert(commit.clone(), reason.to_owned());
        if version.build.is_empty() {
            self.builds.remove(commit);
        } else {
            self.builds.insert(commit.clone(), version.build.clone());
        }
    }

    /// Returns a sentence on why a version is not tried, if it has failed before.
    pub fn reason(&self, version: &Version) -> Option<String> {
        let failed = |commit: &String| match self.builds.get(commit) {
            Some(build) if !version.build.is_empty() => *build == version.build,
            _ => *commit == version.commit,
        };
        let (commit, reason) = self.reasons.iter().find(|(commit, _)| failed(commit))?;
        let like = if *commit == version.commit {
            String::new()
        } else {
            format!(" (it builds the same as {commit:.12})")
        };
        Some(format!(
            "{:.12}{like} is quarantined: {reason}; `supervisor update --force` tries it again",
            version.commit
        ))
    }

    /// Forgets all: a newer version was accepted.
    pub fn clear_all(&mut self) {
        self.reasons.clear();
        self.builds.clear();
    }

    /// Iterates over commits and reasons.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons
            .iter()
            .map(|(commit, reason)| (commit.as_str(), reason.as_str()))
    }
}

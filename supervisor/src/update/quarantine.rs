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
    /// Commits in the order in which they failed. Those that an older supervisor wrote down are not
    /// in it, and came before.
    #[serde(
        rename = "quarantined_in_order",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    order: Vec<String>,
}

impl Quarantine {
    /// Adds a version. The oldest makes room when too many have failed in a row.
    pub fn add(&mut self, version: &Version, reason: &str) {
        let commit = &version.commit;
        self.order.retain(|other| other != commit);
        while self.reasons.len() >= MAX_ENTRIES && !self.reasons.contains_key(commit) {
            let Some(oldest) = self.oldest() else {
                break;
            };
            self.reasons.remove(&oldest);
            self.builds.remove(&oldest);
            self.order.retain(|other| *other != oldest);
        }
        self.order.push(commit.clone());
        self.reasons.insert(commit.clone(), reason.to_owned());
        if version.build.is_empty() {
            self.builds.remove(commit);
        } else {
            self.builds.insert(commit.clone(), version.build.clone());
        }
    }

    fn oldest(&self) -> Option<String> {
        let mut commits = self.reasons.keys();
        let unordered = commits.find(|commit| !self.order.contains(commit));
        unordered.or(self.order.first()).cloned()
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
        self.order.clear();
    }

    /// Iterates over commits and reasons.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons
            .iter()
            .map(|(commit, reason)| (commit.as_str(), reason.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(commit: &str) -> Version {
        Version {
            commit: commit.to_owned(),
            release: commit.to_owned(),
            source: commit.to_owned(),
            summary: String::new(),
            signer: None,
            build: String::new(),
            local: Vec::new(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_makes_room_whatever_it_is_called() {
        let mut quarantine = Quarantine::default();
        // As an older supervisor wrote it.
        quarantine.reasons.insert("zz".into(), "failed".into());
        // Names that sort against their age.
        let name = |age: usize| format!("{:02}", 99 - age);
        for age in 0..MAX_ENTRIES {
            quarantine.add(&version(&name(age)), "failed");
        }
        assert!(!quarantine.reasons.contains_key("zz"));
        quarantine.add(&version(&name(0)), "failed again");
        quarantine.add(&version("new"), "failed");
        assert_eq!(quarantine.reasons.len(), MAX_ENTRIES);
        assert!(
            quarantine.reasons.contains_key(&name(0)),
            "it failed again just now"
        );
        assert!(!quarantine.reasons.contains_key(&name(1)), "the oldest");
        assert!(quarantine.reasons.contains_key(&name(2)));
        assert!(quarantine.reasons.contains_key("new"));
        let json = serde_json::to_string(&quarantine).unwrap();
        assert_eq!(
            serde_json::from_str::<Quarantine>(&json).unwrap(),
            quarantine
        );
    }

    #[test]
    fn what_builds_the_same_fails_the_same_and_is_named_by_its_own_commit() {
        let of = |commit: &str, build: &str| Version {
            build: build.to_owned(),
            ..version(commit)
        };
        let mut quarantine = Quarantine::default();
        quarantine.add(&of("bad", "inputs"), "crashed");
        // Nothing is known of what was built, as in the journal of an older supervisor.
        quarantine.add(&version("old"), "failed");
        let end = "is quarantined: crashed; `supervisor update --force` tries it again";
        let cases = [
            (of("bad", "inputs"), Some(format!("bad {end}"))),
            (
                of("docs", "inputs"),
                Some(format!("docs (it builds the same as bad) {end}")),
            ),
            // Another toolchain, other features, a local fix.
            (of("bad", "others"), None),
            // What it would build is not known: the commit decides.
            (version("bad"), Some(format!("bad {end}"))),
            (version("docs"), None),
            (
                of("old", "others"),
                Some(format!("old {end}").replace("crashed", "failed")),
            ),
        ];
        for (version, reason) in cases {
            assert_eq!(quarantine.reason(&version), reason, "{version:?}");
        }
    }
}

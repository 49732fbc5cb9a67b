//! The status file: what a child says of itself to its supervisor and to people.
//!
//! It is an interface between different versions of two programs: fields are only added, unknown
//! ones are ignored, and [`FORMAT`] rises when an old reader would misread a new file. What only
//! the child's own commands understand is [`Status::details`]: a type of theirs, and any JSON
//! value to everybody else.

use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    file::{self, FileError},
    term::span,
};

/// The current format. Readers accept this one and one above it.
pub const FORMAT: u32 = 1;

/// The environment variable that tells a child where to write its status file.
pub const ENV: &str = "SUPERVISOR_STATUS_FILE";

const MAX_BYTES: u64 = 1 << 20;

/// A file is stale once this many of its renewals have not come.
const MISSED_RENEWALS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Green,
    /// Degraded by something that may pass: a hub away, a late weight set.
    Yellow,
    /// It does not do its job.
    Red,
}

/// Whether a restart now would hurt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafePoint {
    /// True when a restart loses nothing that matters.
    pub safe: bool,
    /// Why not, in words.
    #[serde(default)]
    pub reason: String,
    /// When it will be safe at the latest, in seconds since 1970, if known.
    #[serde(default)]
    pub until: Option<u64>,
}

/// What the child says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "Details: DeserializeOwned + Default"))]
pub struct Status<Details = serde_json::Value> {
    /// The format, see [`FORMAT`].
    pub format: u32,
    /// Process id of the writer.
    pub pid: u32,
    /// The writer's version, with its commit.
    pub version: String,
    /// When it was written, in seconds since 1970.
    pub written_at: u64,
    /// The writer renews the file at least this often, in seconds; unknown from older writers.
    #[serde(default)]
    pub renewed_every: Option<u64>,
    /// One line on what is being done.
    pub phase: String,
    pub health: Health,
    /// Why it is not green.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Whether a restart now would hurt.
    pub restart: SafePoint,
    /// What else the child knows, in a type of its own.
    #[serde(default)]
    pub details: Details,
}

/// Why a status file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not a status file.
    #[error("{path} is not a status file")]
    Malformed {
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It comes from a much newer program.
    #[error("{path} has format {found}, newest known is {newest}")]
    TooNew {
        path: String,
        found: u32,
        /// The newest format that this program knows; it reads one above it.
        newest: u32,
    },
}

impl<Details> Status<Details> {
    /// Returns how old the file is, in seconds. One from the future has no age: a clock was set
    /// back since.
    pub const fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.written_at)
    }

    /// Returns whether the writer should have renewed the file long ago: it hangs, or its disk is
    /// full. What a stale file says no longer holds. One from the future is stale too: a writer that
    /// lives would have written it again since the clock was set back.
    pub fn is_stale(&self, now: u64) -> bool {
        self.renewed_every.is_some_and(|every| {
            self.written_at.abs_diff(now) > MISSED_RENEWALS.saturating_mul(every)
        })
    }

    /// Returns what the file is worth at this moment: a stale one is not green, and says so.
    #[must_use]
    pub fn as_of(mut self, now: u64) -> Self {
        if self.is_stale(now) {
            self.health = self.health.max(Health::Yellow);
            let age = match self.written_at.checked_sub(now) {
                Some(ahead) => format!("{} ahead of the clock", span(ahead)),
                None => format!("{} old", span(self.age(now))),
            };
            self.problems.push(format!(
                "this status is {age} and should be renewed every {} s: the program hangs, or its \
                 disk is full",
                self.renewed_every.unwrap_or(0)
            ));
        }
        self
    }
}

impl<Details: Serialize> Status<Details> {
    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), StatusError> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|source| StatusError::Malformed {
                path: path.display().to_string(),
                source,
            })?;
        bytes.push(b'\n');
        Ok(file::write_atomic(path, &bytes)?)
    }
}

impl<Details: DeserializeOwned + Default> Status<Details> {
    /// Reads the file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, StatusError> {
        let Some(bytes) = file::read_limited(path, MAX_BYTES)? else {
            return Ok(None);
        };
        let status: Self =
            serde_json::from_slice(&bytes).map_err(|source| StatusError::Malformed {
                path: path.display().to_string(),
                source,
            })?;
        if status.format > FORMAT + 1 {
            return Err(StatusError::TooNew {
                path: path.display().to_string(),
                found: status.format,
                newest: FORMAT,
            });
        }
        Ok(Some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
    struct Details {
        step: u64,
    }

    fn example() -> Status<Details> {
        Status {
            format: FORMAT,
            pid: 42,
            version: "0.3.0 (abc)".into(),
            written_at: 1_790_000_000,
            renewed_every: Some(15),
            phase: "evaluating".into(),
            health: Health::Green,
            problems: vec![],
            restart: SafePoint {
                safe: false,
                reason: "extrinsic in flight".into(),
                until: Some(9),
            },
            details: Details { step: 3 },
        }
    }

    #[test]
    fn the_file_is_a_contract() {
        insta::assert_json_snapshot!(example());
    }

    #[test]
    fn a_reader_that_knows_no_details_passes_them_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        example().write(&path).unwrap();
        let foreign: Status = Status::read(&path).unwrap().unwrap();
        foreign.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), Some(example()));
    }

    #[test]
    fn a_file_of_the_release_before_is_read() {
        let before = r#"{"format":1,"pid":42,"version":"0.3.0","written_at":1790000000,
            "phase":"evaluating","health":"green","restart":{"safe":true}}"#;
        let status: Status<Details> = serde_json::from_str(before).unwrap();
        assert_eq!(status.renewed_every, None);
        assert!(
            !status.is_stale(u64::MAX),
            "nobody knows how often it is renewed"
        );
    }

    #[test]
    fn a_stale_file_is_not_green() {
        let status = example();
        let soon = status.written_at + 60;
        assert_eq!(status.clone().as_of(soon), status);
        let behind = status.written_at - 60;
        assert_eq!(
            status.clone().as_of(behind),
            status,
            "clocks differ a little"
        );
        let ahead = status.clone().as_of(behind - 1);
        assert_eq!(ahead.health, Health::Yellow);
        assert_eq!(
            ahead.problems,
            [
                "this status is 1 min 1 s ahead of the clock and should be renewed every 15 s: the program hangs, or its disk is full"
            ]
        );
        let stale = status.as_of(soon + 1);
        assert_eq!(stale.health, Health::Yellow);
        assert_eq!(
            stale.problems,
            [
                "this status is 1 min 1 s old and should be renewed every 15 s: the program hangs, or its disk is full"
            ]
        );
    }

    #[test]
    fn one_version_forward_is_read_and_two_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        assert!(Status::<Details>::read(&path).unwrap().is_none());
        let mut status = example();
        status.format = FORMAT + 1;
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap().unwrap(), status);
        status.format = FORMAT + 2;
        status.write(&path).unwrap();
        assert!(matches!(
            Status::<Details>::read(&path),
            Err(StatusError::TooNew { .. })
        ));
    }
}

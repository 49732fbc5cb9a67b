//! The status file: what a child says of itself to its supervisor and to people.
//!
//! It is an interface between different versions of two programs: fields are only added, unknown
//! ones are ignored, and [`FORMAT`] rises when an old reader would misread a new file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::file::{self, FileError};

/// The current format. Readers accept this one and one above it.
pub const FORMAT: u32 = 1;

/// The environment variable that tells a child where to write its status file.
pub const ENV: &str = "SUPERVISOR_STATUS_FILE";

const MAX_BYTES: u64 = 1 << 20;

/// How the child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
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
pub struct Status {
    /// The format, see [`FORMAT`].
    pub format: u32,
    /// Process id of the writer.
    pub pid: u32,
    /// The writer's version, with its commit.
    pub version: String,
    /// When it was written, in seconds since 1970.
    pub written_at: u64,
    /// One line on what is being done.
    pub phase: String,
    /// How it is.
    pub health: Health,
    /// Why it is not green.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Whether a restart now would hurt.
    pub restart: SafePoint,
    /// Anything else, for people and dashboards.
    #[serde(default)]
    pub details: serde_json::Value,
}

/// Why a status file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no status file.
    #[error("{path} is not a status file")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It comes from a much newer program.
    #[error("{path} has format {found}, newest known is {FORMAT}")]
    TooNew {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
    },
}

impl Status {
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
            });
        }
        Ok(Some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Status {
        Status {
            format: FORMAT,
            pid: 42,
            version: "0.3.0 (abc)".into(),
            written_at: 1_790_000_000,
            phase: "evaluating".into(),
            health: Health::Green,
            problems: vec![],
            restart: SafePoint {
                safe: false,
                reason: "extrinsic in flight".into(),
                until: Some(9),
            },
            details: serde_json::json!({"step": 3}),
        }
    }

    #[test]
    fn the_file_is_a_contract() {
        insta::assert_json_snapshot!(example());
    }

    #[test]
    fn one_version_forward_is_read_and_two_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        assert!(Status::read(&path).unwrap().is_none());
        let mut status = example();
        status.format = FORMAT + 1;
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap().unwrap(), status);
        status.format = FORMAT + 2;
        status.write(&path).unwrap();
        assert!(matches!(
            Status::read(&path),
            Err(StatusError::TooNew { .. })
        ));
    }
}

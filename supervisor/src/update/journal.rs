//! The journal: the update's state on disk, written before each effect.

use std::path::{Path, PathBuf};

use shared::file::{self, FileError};

use super::state::{FORMAT, State};

const MAX_BYTES: u64 = 1 << 20;

/// Where the state is kept.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    written: Option<State>,
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged.
    #[error("{} is not a journal of this supervisor", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A newer supervisor wrote it.
    #[error("{} was written by a newer supervisor (format {found})", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Journal {
    /// Reads the journal, or starts an empty one.
    pub fn open(path: &Path) -> Result<(Self, State), JournalError> {
        let state = Self::read(path)?;
        let journal = Self {
            path: path.to_owned(),
            written: state.clone(),
        };
        Ok((journal, state.unwrap_or_default()))
    }

    /// Reads the journal; `None` if there is none yet.
    pub fn read(path: &Path) -> Result<Option<State>, JournalError> {
        #[derive(serde::Deserialize)]
        struct Head {
            format: u32,
        }
        let Some(bytes) = file::read_limited(path, MAX_BYTES)? else {
            return Ok(None);
        };
        let malformed = |source| JournalError::Malformed {
            path: path.to_owned(),
            source,
        };
        // The format first: a newer journal may not parse as ours.
        let head: Head = serde_json::from_slice(&bytes).map_err(malformed)?;
        if head.format > FORMAT {
            return Err(JournalError::TooNew {
                path: path.to_owned(),
                found: head.format,
            });
        }
        Ok(Some(serde_json::from_slice(&bytes).map_err(malformed)?))
    }

    /// Writes the state, durably, unless it is what was written last.
    pub fn write(&mut self, state: &State) -> Result<(), JournalError> {
        let same = self
            .written
            .as_ref()
            .is_some_and(|written| same_on_disk(written, state));
        if same {
            return Ok(());
        }
        let mut bytes =
            serde_json::to_vec_pretty(state).map_err(|source| JournalError::Malformed {
                path: self.path.clone(),
                source,
            })?;
        bytes.push(b'\n');
        file::write_atomic_private(&self.path, &bytes)?;
        self.written = Some(state.clone());
        Ok(())
    }
}

fn same_on_disk(a: &State, b: &State) -> bool {
    a.phase == b.phase
        && a.accepted == b.accepted
        && a.previous == b.previous
        && a.trusted == b.trusted
        && a.quarantine == b.quarantine
        && a.problem == b.problem
        && a.failures == b.failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_of_a_newer_supervisor_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let (mut journal, mut state) = Journal::open(&path).unwrap();
        state.problem = Some("remote gone".into());
        journal.write(&state).unwrap();
        assert_eq!(Journal::read(&path).unwrap().unwrap(), state);
        file::write_atomic(&path, br#"{"format": 2, "what": "ever"}"#).unwrap();
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::TooNew { found: 2, .. })
        ));
        file::write_atomic(&path, b"{").unwrap();
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::Malformed { .. })
        ));
    }
}

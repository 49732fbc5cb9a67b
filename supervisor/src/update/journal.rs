//! The journal: the update's state on disk, written before each effect.

use std::path::{Path, PathBuf};

use shared::file::{self, FileError};

use super::state::{FORMAT, UpdateState};

const MAX_BYTES: u64 = 1 << 20;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a journal of this supervisor", path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A newer supervisor wrote it.
    #[error("{} was written by a newer supervisor (format {found})", path.display())]
    TooNew { path: PathBuf, found: u32 },
}

/// Reads the journal; `None` if there is none yet.
pub fn read(path: &Path) -> Result<Option<UpdateState>, JournalError> {
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

pub fn write(path: &Path, state: &UpdateState) -> Result<(), JournalError> {
    let mut bytes = serde_json::to_vec_pretty(state).map_err(|source| JournalError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    Ok(file::write_atomic_private(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_of_a_newer_supervisor_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        assert_eq!(read(&path).unwrap(), None);
        let state = UpdateState {
            problem: Some("remote gone".into()),
            ..UpdateState::default()
        };
        write(&path, &state).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), state);
        file::write_atomic(&path, br#"{"format": 2, "what": "ever"}"#).unwrap();
        assert!(matches!(
            read(&path),
            Err(JournalError::TooNew { found: 2, .. })
        ));
        file::write_atomic(&path, b"{").unwrap();
        assert!(matches!(read(&path), Err(JournalError::Malformed { .. })));
    }
}

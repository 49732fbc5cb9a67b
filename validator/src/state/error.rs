//! What can be wrong with the files of the state.

use std::path::PathBuf;

use shared::{Exit, Failure, file::FileError};

use super::Identity;
use subnet::Fault;

/// Why a state file was refused.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be read, written or set aside.
    #[error(transparent)]
    File(#[from] FileError),
    /// It belongs to another validator.
    #[error(
        "{} is the state of hotkey {} on subnet {}, not of {} on subnet {}",
        path.display(), found.hotkey, found.netuid, expected.hotkey, expected.netuid
    )]
    Foreign {
        path: PathBuf,
        found: Box<Identity>,
        expected: Box<Identity>,
    },
    /// It can't be written as JSON.
    #[error("the state can't be written")]
    Unwritable(#[from] serde_json::Error),
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        Self::machine(Failure::of(Exit::Machine, &error))
    }
}

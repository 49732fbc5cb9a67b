//! What went wrong in a step of an update, and whose fault it is.

use serde::{Deserialize, Serialize};
use shared::causes::one_line;

use crate::text;

/// Whose fault it is; this decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The network or the remote: try again, with back-off.
    Outside,
    /// This machine (disk, memory, a killed process): try again, with back-off.
    Machine,
    /// The commit: it goes into quarantine.
    Code,
    /// It was judged and not wanted (signature, rewritten branch, conflict): wait for another.
    Refused,
    /// How the supervisor is set up: wait for the operator.
    Config,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct Fault {
    pub blame: Blame,
    /// What failed, on what, and why, in one line.
    #[serde(deserialize_with = "text::printable")]
    pub message: String,
    /// What the operator can do.
    #[serde(default, deserialize_with = "text::maybe_printable")]
    pub hint: Option<String>,
    /// The upstream commit it is about.
    #[serde(default)]
    pub commit: Option<String>,
    /// Whether our clone lacks something, so that a new one may do.
    #[serde(skip)]
    pub broken_clone: bool,
}

impl Fault {
    /// Makes a fault from a heading.
    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self {
            blame,
            message: message.into(),
            hint: None,
            commit: None,
            broken_clone: false,
        }
    }

    /// Makes a fault of this machine from a file or system error.
    pub fn machine(error: &dyn std::error::Error) -> Self {
        Self::new(Blame::Machine, one_line(error))
    }

    /// Adds what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the commit it is about.
    #[must_use]
    pub fn on(mut self, commit: impl std::fmt::Display) -> Self {
        self.commit = Some(commit.to_string());
        self
    }
}

impl From<shared::file::FileError> for Fault {
    fn from(error: shared::file::FileError) -> Self {
        Self::machine(&error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::machine(&error)
    }
}

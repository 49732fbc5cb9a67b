//! What people are called for, and what they can do.

use std::fmt;

use serde::{Deserialize, Serialize};
use shared::notices::Call;

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trouble {
    /// The child ends again and again.
    CrashLoop,
    /// There is no child, and none comes.
    Down,
    /// The child says that its configuration is wrong, and is not started again.
    Misconfigured,
    /// Something keeps updates away.
    Updates,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Trouble {
    /// As long as the alert rules for Prometheus wait, where these have the same.
    pub(crate) const fn call(self) -> Call {
        let (after_minutes, remedy) = match self {
            Self::CrashLoop => (
                0,
                "`supervisor logs` shows its last words; `supervisor rollback` returns to the release before",
            ),
            Self::Down => (5, "`supervisor status` says why"),
            Self::Misconfigured => (0, "mend its configuration, then `supervisor restart`"),
            Self::Updates => (60, "`supervisor check` says what"),
        };
        Call {
            after_minutes,
            remedy,
        }
    }
}

//! Why a model was not verified: refused for what it is, or to be tried again.

use std::{fmt, time::Duration};

use http_client::HttpError;
use shared::file::FileError;
use subnet::Fault;

/// Longer reasons are cut: they may quote what a miner wrote.
const MAX_REASON: usize = 1000;

/// Why a model was not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The model itself is at fault.
    #[error("{reason}")]
    Refused {
        /// What is wrong with it, in one line.
        reason: String,
        /// Whether only a new commitment can change that. A private or missing repository is
        /// refused too, but its miner may still publish it.
        lasting: bool,
    },
    /// Hub or machine are at fault: to be tried again, at no cost to the model.
    #[error("{fault}")]
    Retry {
        /// What stood in the way, and whose fault it is.
        fault: Fault,
        /// How long the hub asked us to wait.
        after: Option<Duration>,
    },
}

/// What judging a model yields.
pub type Judged<T> = Result<T, Rejection>;

impl Rejection {
    /// Refuses until there is a new commitment.
    pub fn refused(reason: impl fmt::Display) -> Self {
        Self::Refused {
            reason: one_line(&reason.to_string()),
            lasting: true,
        }
    }

    /// Refuses for as long as the repository can't be read.
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self::Refused {
            reason: one_line(&reason.to_string()),
            lasting: false,
        }
    }

    /// Puts off because of something outside.
    pub fn outside(reason: impl fmt::Display) -> Self {
        Self::Retry {
            fault: Fault::outside(one_line(&reason.to_string())),
            after: None,
        }
    }

    /// Returns how long we were asked to wait.
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. } => *after,
            Self::Refused { .. } => None,
        }
    }

    /// Puts off for at least so long.
    #[must_use]
    pub(super) fn with_pause(mut self, pause: Option<Duration>) -> Self {
        if let Self::Retry { after, .. } = &mut self {
            *after = pause;
        }
        self
    }

    /// Puts off because of this machine.
    pub fn machine(reason: impl fmt::Display) -> Self {
        Self::Retry {
            fault: Fault::machine(one_line(&reason.to_string())),
            after: None,
        }
    }
}

impl From<FileError> for Rejection {
    fn from(error: FileError) -> Self {
        Self::machine(format_args!("{error}: {}", error.source))
    }
}

impl From<HttpError> for Rejection {
    fn from(error: HttpError) -> Self {
        if error.is_unavailable() {
            return Self::unavailable(error);
        }
        let after = error.retry_after();
        Self::Retry {
            fault: Fault::outside(one_line(&error.to_string())),
            after,
        }
    }
}

/// Makes a text fit for a log line and a terminal: no control characters, not endless.
fn one_line(text: &str) -> String {
    let text = shared::causes::plain(text);
    let mut line: String = text
        .chars()
        .take(MAX_REASON)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_REASON).is_some() {
        line.push('…');
    }
    line
}

//! What can go wrong on the way to the hub, and whose fault that is.

use std::time::Duration;

use crate::{hub::listing::ListingError, rejection::Rejection};
use subnet::Fault;

/// Why the hub did not give us what we asked for.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The repository, revision or file is not there for us: missing, private, gated, disabled.
    #[error("{url} is not available: {why}")]
    Unavailable {
        /// What was asked for.
        url: String,
        /// The hub's own word for it.
        why: String,
    },
    /// We ask too often.
    #[error("{url}: the hub asks us to wait (429)")]
    RateLimited {
        /// What was asked for.
        url: String,
        /// For how long, if it said so.
        after: Option<Duration>,
    },
    /// The server failed.
    #[error("{url}: status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection failed, stalled or ended early.
    #[error("{url}: {why}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What happened.
        why: String,
    },
    /// The answer contradicts itself, the listing or an earlier answer.
    #[error("{url}: {why}")]
    Contradiction {
        /// What was asked for.
        url: String,
        /// The contradiction.
        why: String,
    },
    /// The answer is longer than anything we expect there.
    #[error("{url}: more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// A redirect leads where we don't go.
    #[error("{url}: {why}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Why we don't follow.
        why: String,
    },
    /// The answer is no listing.
    #[error("{url}: {source}")]
    Listing {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        source: ListingError,
    },
}

impl HubError {
    /// Returns whether the same request may succeed a moment later.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Status { .. } | Self::Transport { .. }
        )
    }
}

impl From<HubError> for Rejection {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Unavailable { .. } => Self::unavailable(error),
            HubError::RateLimited { after, .. } => Self::Retry {
                fault: Fault::outside(error),
                after,
            },
            error => Self::outside(error),
        }
    }
}

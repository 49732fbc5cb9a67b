//! How long a worker may take.

use std::time::Duration;

/// How long to wait for a worker before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    pub total: Duration,
    /// Without a sign of progress.
    pub idle: Duration,
}

impl TimeLimits {
    /// The usual limit on silence, within a limit on the whole.
    pub const fn within(total: Duration) -> Self {
        Self {
            total,
            idle: Duration::from_mins(5),
        }
    }
}

//! The one door to the wall clock.

use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;

/// Returns the current time. Durations are measured with `Instant`, never with this.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::try_from(UNIX_EPOCH + since).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the current time in whole seconds since 1970.
pub fn unix_seconds() -> u64 {
    u64::try_from(now().as_second()).unwrap_or(0)
}

//! The sd_notify protocol towards whoever started us: systemd or the supervisor.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that start-up is complete.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Says in one line what we are doing.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// Says that real progress was made; call it from the work itself, never from a timer.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// Says that we are on our way out.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Asks for more time to start, run or stop.
pub fn extend_timeout(by: Duration) {
    send(&[NotifyState::ExtendTimeoutUsec(
        u32::try_from(by.as_micros()).unwrap_or(u32::MAX),
    )]);
}

fn send(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET this does nothing; a failure must not stop the work.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "sd_notify failed");
    }
}

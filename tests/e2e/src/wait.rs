//! Waiting for something to become true: looking again and again, under a deadline.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Lets the moment between two looks pass.
pub async fn a_moment() {
    sleep(Duration::from_millis(10)).await;
}

/// Waits until something holds; returns whether it did within the time.
#[must_use]
pub async fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let wait = async {
        while !holds() {
            a_moment().await;
        }
    };
    timeout(limit, wait).await.is_ok()
}

//! Counts and paces the bytes that come in.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A limit on bytes per second, shared by all connections.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the bytes let through so far will have been paid for.
    paid_until: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) const fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            paid_until: Mutex::new(None),
        }
    }

    /// Waits until `bytes` that have just come in are within the limit.
    pub(crate) async fn pass(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let until = {
            let mut paid = self
                .paid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let from = paid.map_or(now, |paid| paid.max(now));
            let until = from + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            *paid = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[derive(Debug, Default)]
pub(crate) struct ByteCounter(AtomicU64);

impl ByteCounter {
    pub(crate) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_paces_all_connections_together() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        tokio::join!(pace.pass(2000), pace.pass(3000));
        assert_eq!(start.elapsed().as_secs(), 5);
        let free = Pace::new(None);
        free.pass(u64::MAX).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}

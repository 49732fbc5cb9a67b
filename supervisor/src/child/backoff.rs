//! When to start the child again after it ended by itself.

use std::time::Duration;

/// Exponential back-off with jitter that starts over after a healthy run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    pub shortest: Duration,
    pub longest: Duration,
    /// A run of this length clears the count.
    pub healthy: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            shortest: Duration::from_secs(1),
            longest: Duration::from_mins(5),
            healthy: Duration::from_mins(1),
            failures: 0,
        }
    }
}

impl Backoff {
    /// Returns how long to wait after a run of `ran`. `draw` in 0..=1000 spreads the wait by up to
    /// a fifth, so that many validators hit by one outage do not come back in step.
    pub fn after(&mut self, ran: Duration, draw: u32) -> Duration {
        if ran >= self.healthy {
            self.failures = 0;
        }
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = self
            .shortest
            .saturating_mul(2_u32.pow(doublings))
            .min(self.longest);
        wait + wait * draw.min(1000) / 5000
    }

    /// Returns the failures in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures: a new version, or the operator's wish.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_in_bounds_and_grow(runs in prop::collection::vec((0_u64..120, 0_u32..=1000), 1..40)) {
            let mut backoff = Backoff::default();
            let mut last = Duration::ZERO;
            for (ran, draw) in runs {
                let ran = Duration::from_secs(ran);
                let wait = backoff.after(ran, draw);
                prop_assert!(wait >= backoff.shortest && wait <= backoff.longest * 6 / 5);
                if ran >= backoff.healthy {
                    prop_assert!(wait <= backoff.shortest * 6 / 5);
                } else {
                    // The jitter is smaller than a doubling.
                    prop_assert!(wait * 6 / 5 >= last);
                }
                last = wait;
            }
        }
    }
}

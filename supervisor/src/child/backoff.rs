//! When to start the child again after it ended by itself.

use std::time::Duration;

use shared::back_off::BackOff;

const PAUSES: BackOff = BackOff {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(5),
};
/// A run of this length clears the count.
pub(super) const HEALTHY: Duration = Duration::from_mins(1);

/// Exponential back-off with jitter that starts over after a healthy run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartPauses {
    failures: u32,
}

impl RestartPauses {
    /// Returns how long to wait after a run of `ran`. `draw` in 0..=1000 spreads the wait by up to
    /// a fifth, so that many validators hit by one outage do not come back in step.
    pub fn after(&mut self, ran: Duration, draw: u32) -> Duration {
        if ran >= HEALTHY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = PAUSES.after(self.failures);
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
            let mut pauses = RestartPauses::default();
            let mut last = Duration::ZERO;
            for (ran, draw) in runs {
                let ran = Duration::from_secs(ran);
                let wait = pauses.after(ran, draw);
                prop_assert!(wait >= PAUSES.first && wait <= PAUSES.longest * 6 / 5);
                if ran >= HEALTHY {
                    prop_assert!(wait <= PAUSES.first * 6 / 5);
                } else {
                    // The jitter is smaller than a doubling.
                    prop_assert!(wait * 6 / 5 >= last);
                }
                last = wait;
            }
        }
    }
}

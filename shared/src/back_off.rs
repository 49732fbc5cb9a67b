//! Pauses between tries: each twice as long as the one before, up to a longest.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The pause after the first failure.
    pub first: Duration,
    pub longest: Duration,
}

impl BackOff {
    /// Returns the pause after so many failures in a row; none after none.
    pub fn after(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        self.first
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let back_off = BackOff {
            first: Duration::from_secs(5),
            longest: Duration::from_secs(18),
        };
        let pauses = [0, 1, 2, 3, u32::MAX].map(|failures| back_off.after(failures).as_secs());
        assert_eq!(pauses, [0, 5, 10, 18, 18]);
    }
}

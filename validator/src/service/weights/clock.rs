//! When weights are due, in blocks; what is wrong when they are late. No chain, no time.

use shared::status::Health;

use report::{status::WeightsClock, table::blocks};
use subnet::BlockNumber;

/// A restart within so many blocks of due weights would hurt.
const HOLD_BLOCKS: u64 = 3;

/// The longest pause between tries, in blocks; it doubles from one.
const LONGEST_PAUSE: u64 = 16;

/// Commits planned in one epoch. The chain takes ten: the others are for those that a fork loses.
const COMMITS: u64 = 8;

/// Blocks before an epoch at which the last commit of the one before goes out: enough for a few
/// tries.
const LATE: u64 = 12;

/// A twin that has set no weights for so many epochs is gone.
const QUIET_EPOCHS: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clock {
    /// Block of our last weight set on the chain, or of our registration.
    pub(super) last: BlockNumber,
    /// Block at which the next one is due.
    pub(super) due: BlockNumber,
    pub(super) failed: u32,
    /// No try before this block.
    pub(super) not_before: BlockNumber,
}

impl Clock {
    /// Takes over what the chain knows of our last weight set. A newer one than we know of ends
    /// the failures: a try that seemed lost has arrived.
    pub(super) fn follow(&mut self, last_update: BlockNumber, interval: u64) {
        if last_update > self.last {
            self.succeeded(last_update, interval);
        }
        self.due = self.last + interval;
    }

    /// Notes that weights were set.
    pub(super) const fn succeeded(&mut self, block: BlockNumber, interval: u64) {
        self.last = block;
        self.due = block + interval;
        self.failed = 0;
        self.not_before = 0;
    }

    /// Notes a try at `block` that failed; the chain may have named the blocks to wait.
    pub(super) fn failed(&mut self, block: BlockNumber, wait: Option<u64>) {
        let doubled = 2_u64.saturating_pow(self.failed).min(LONGEST_PAUSE);
        self.failed += 1;
        self.not_before = block + wait.unwrap_or(doubled);
    }

    /// Delays a commit where an epoch of `tempo` blocks has more intervals than the chain takes
    /// commits: the commits are spread over the epoch, and the last one, which is what its reveal
    /// shows in the end, goes out shortly before the next epoch begins.
    pub(super) fn spread(&mut self, tempo: u64, interval: u64, next_epoch: Option<BlockNumber>) {
        let Some(next_epoch) = next_epoch else { return };
        if tempo / interval.max(1) < COMMITS {
            return;
        }
        let step = tempo.div_ceil(COMMITS).max(1);
        let mut last = next_epoch.saturating_sub(LATE);
        while last < self.due {
            last += tempo;
        }
        self.due = last - (last - self.due) / step * step;
    }

    pub(super) fn is_due(&self, head: BlockNumber) -> bool {
        head >= self.due.max(self.not_before)
    }

    /// Returns in how many blocks weights are due, if that is so soon that a restart would hurt.
    pub(super) fn due_soon(&self, head: BlockNumber) -> Option<u64> {
        let ahead = self.due.saturating_sub(head);
        (ahead <= HOLD_BLOCKS && self.failed == 0).then_some(ahead)
    }

    pub(super) const fn at(&self, head: BlockNumber) -> WeightsClock {
        WeightsClock {
            last_block: self.last,
            age_blocks: head.saturating_sub(self.last),
            due_block: self.due,
            late_blocks: head.saturating_sub(self.due),
            failed_tries: self.failed,
            next_try_block: self.not_before,
        }
    }

    /// Says what is wrong with weights this late. After `cutoff` blocks the chain takes us for
    /// inactive; `waiting` for the first step, late is not an alarm yet.
    pub(super) fn lateness(
        &self,
        head: BlockNumber,
        epoch: u64,
        cutoff: u64,
        waiting: bool,
    ) -> Option<(Health, String)> {
        let WeightsClock {
            age_blocks: age,
            late_blocks: late,
            ..
        } = self.at(head);
        let text = format!(
            "the weights on the chain are {} old, overdue for {}",
            blocks(age),
            blocks(late)
        );
        if age + epoch >= cutoff && late > 0 {
            let text = format!(
                "{text}; at {} the chain takes us for inactive",
                blocks(cutoff)
            );
            Some((Health::Red, text))
        } else if late > 2 * epoch {
            Some((Health::Red, text))
        } else if late > epoch / 2 && !waiting {
            Some((Health::Yellow, text))
        } else {
            None
        }
    }
}

/// Returns whether a twin that set weights at `seen` has been quiet for so long that it is gone.
pub(super) const fn is_quiet(seen: BlockNumber, head: BlockNumber, interval: u64) -> bool {
    head >= seen + QUIET_EPOCHS * interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_end_with_any_newer_weights_of_ours() {
        let mut clock = Clock::default();
        clock.follow(100, 10);
        assert!(clock.is_due(110) && !clock.is_due(109));
        clock.failed(110, None);
        clock.failed(111, None);
        clock.failed(113, Some(7));
        assert_eq!((clock.failed, clock.not_before), (3, 120));
        assert!(!clock.is_due(119));
        clock.follow(100, 10);
        assert_eq!(clock.failed, 3, "the same weights are not a success");
        // The third try had arrived after all.
        clock.follow(114, 10);
        assert_eq!((clock.failed, clock.due), (0, 124));
    }

    #[test]
    fn commits_of_a_long_epoch_are_few_and_the_last_is_late() {
        const TEMPO: u64 = 7200;
        let mut clock = Clock::default();
        clock.follow(1000, 100);
        let mut commits = Vec::new();
        for head in 1001..1000 + 3 * TEMPO {
            let next_epoch = (head / TEMPO + 1) * TEMPO;
            clock.follow(clock.last, 100);
            clock.spread(TEMPO, 100, Some(next_epoch));
            if clock.is_due(head) {
                commits.push(head);
                clock.succeeded(head, 100);
            }
        }
        for epoch in 1..3 {
            let of_epoch = |block: &&u64| **block / TEMPO == epoch;
            let of_epoch: Vec<_> = commits.iter().filter(of_epoch).collect();
            assert!((7..=9).contains(&of_epoch.len()), "{of_epoch:?}");
            let last = **of_epoch.last().unwrap();
            assert_eq!((epoch + 1) * TEMPO - last, LATE);
        }
        let mut short = Clock::default();
        short.follow(1000, 100);
        short.spread(360, 100, Some(1300));
        assert_eq!(short.due, 1100, "four commits are few enough");
    }

    #[test]
    fn pauses_double_and_end_at_sixteen_blocks() {
        let mut clock = Clock::default();
        let pauses = std::iter::repeat_with(|| {
            clock.failed(0, None);
            clock.not_before
        });
        assert_eq!(pauses.take(7).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn late_weights_are_yellow_then_red_and_fresh_ones_end_it() {
        let mut clock = Clock::default();
        clock.follow(100, 10);
        let told = |head, waiting| {
            let late = clock.lateness(head, 10, 60, waiting);
            late.map(|(health, _)| health)
        };
        assert_eq!(told(115, false), None);
        assert_eq!(told(116, false), Some(Health::Yellow));
        assert_eq!(told(116, true), None);
        assert_eq!(told(131, true), Some(Health::Red));
        assert_eq!(told(150, false), Some(Health::Red));
        clock.follow(150, 10);
        assert_eq!(clock.lateness(155, 10, 60, false), None);
    }

    #[test]
    fn a_restart_is_held_off_shortly_before_weights_are_due() {
        let mut clock = Clock::default();
        clock.follow(100, 10);
        assert_eq!(clock.due_soon(106), None);
        assert_eq!(clock.due_soon(107), Some(3));
        assert_eq!(clock.due_soon(111), Some(0));
        clock.failed(111, None);
        assert_eq!(clock.due_soon(112), None);
    }

    #[test]
    fn a_twin_is_gone_after_two_quiet_epochs() {
        assert!(!is_quiet(100, 119, 10));
        assert!(is_quiet(100, 120, 10));
    }
}

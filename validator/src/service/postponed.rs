//! Competitions whose step was postponed, and when each is tried again.

use std::{collections::BTreeMap, time::Instant};

use shared::back_off::BackOff;

use subnet::CompetitionId;

/// The competitions whose last try at a step failed. Each has a pause of its own, so that one that
/// fails again and again takes no turn from the others.
#[derive(Debug)]
pub(super) struct Postponed {
    pause: BackOff,
    until: BTreeMap<CompetitionId, (u32, Instant)>,
}

impl Postponed {
    pub(super) const fn new(pause: BackOff) -> Self {
        Self {
            pause,
            until: BTreeMap::new(),
        }
    }

    /// Postpones a competition's step; returns how often that has happened in a row.
    pub(super) fn add(&mut self, competition: &CompetitionId, now: Instant) -> u32 {
        let entry = self.until.entry(competition.clone()).or_insert((0, now));
        let times = entry.0.saturating_add(1);
        *entry = (times, now + self.pause.after(times));
        times
    }

    /// Returns whether a competition may have its turn now.
    pub(super) fn is_due(&self, competition: &CompetitionId, now: Instant) -> bool {
        self.until.get(competition).is_none_or(|(_, at)| *at <= now)
    }

    /// Forgets a competition whose step was made, or is no longer due.
    pub(super) fn end(&mut self, competition: &CompetitionId) {
        self.until.remove(competition);
    }

    /// Forgets every competition that is not among these.
    pub(super) fn keep<'c>(
        &mut self,
        competitions: impl Iterator<Item = &'c CompetitionId> + Clone,
    ) {
        self.until
            .retain(|id, _| competitions.clone().any(|kept| kept == id));
    }

    /// Returns when the next one is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.until.values().map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_fails_for_ever_leaves_the_others_their_turns() {
        let [l3, s1] = ["l3", "s1"].map(CompetitionId::from);
        let second = Duration::from_secs(1);
        let mut postponed = Postponed::new(BackOff {
            first: 2 * second,
            longest: 300 * second,
        });
        let mut now = Instant::now();
        assert_eq!(postponed.next(), None);
        for times in 1..20 {
            assert!(postponed.is_due(&l3, now));
            assert_eq!(postponed.add(&l3, now), times);
            assert!(!postponed.is_due(&l3, now) && postponed.is_due(&s1, now));
            let next = postponed.next().unwrap();
            assert!(next <= now + 300 * second);
            now = next;
        }
        postponed.end(&l3);
        assert_eq!(postponed.next(), None);
        assert_eq!(postponed.add(&l3, now), 1);
        postponed.keep([&s1].into_iter());
        assert_eq!(postponed.next(), None);
    }
}

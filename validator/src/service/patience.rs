//! How long a step waits for members of its pool that are on their way to the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use subnet::{CompetitionId, Hotkey};

/// How long a step waits for one member of its pool, from when it was first missed.
const PATIENCE: Duration = Duration::from_mins(30);

/// Since when each competition has waited for which members of its pool. Each member has a time of
/// its own: one that never comes uses up no patience with another that is fetched again.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: BTreeMap<CompetitionId, BTreeMap<Hotkey, Instant>>,
}

impl Patience {
    /// Notes whom a competition awaits; returns whether to wait for any of them.
    pub(super) fn waits(
        &mut self,
        competition: &CompetitionId,
        awaited: &BTreeSet<Hotkey>,
        now: Instant,
    ) -> bool {
        let since = self.since.entry(competition.clone()).or_default();
        since.retain(|hotkey, _| awaited.contains(hotkey));
        for hotkey in awaited {
            since.entry(*hotkey).or_insert(now);
        }
        since
            .values()
            .any(|since| now.saturating_duration_since(*since) < PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_awaited_from_when_it_was_first_missed() {
        let [l3, s1] = ["l3", "s1"].map(CompetitionId::from);
        let members = |numbers: &[u8]| numbers.iter().map(|n| Hotkey([*n; 32])).collect();
        let start = Instant::now();
        let mut patience = Patience::default();
        let mut waits = |competition: &CompetitionId, numbers: &[u8], minutes: u64| {
            let now = start + Duration::from_mins(minutes);
            patience.waits(competition, &members(numbers), now)
        };
        assert!(!waits(&l3, &[], 0));
        // A copy decays after hours of running: it has all of its time.
        assert!(waits(&l3, &[1], 300));
        assert!(waits(&l3, &[1], 329));
        assert!(waits(&s1, &[1], 329), "another competition");
        assert!(!waits(&l3, &[1], 330), "it does not come");
        assert!(waits(&l3, &[1, 2], 331), "another is fetched again");
        assert!(!waits(&l3, &[1], 332), "which is here now");
        assert!(!waits(&l3, &[], 333));
        assert!(waits(&l3, &[1], 334), "lost once more");
    }
}

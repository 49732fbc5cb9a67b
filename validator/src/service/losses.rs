//! Competitions whose models have no finite loss: more likely a fault of ours than of all miners.

use std::collections::BTreeSet;

use shared::status::Health;

use report::board::Alarm;
use subnet::CompetitionId;

/// Competitions whose last step had no finite loss.
#[derive(Debug)]
pub(super) struct Losses {
    alarm: Alarm,
    without: BTreeSet<CompetitionId>,
}

impl Losses {
    pub(super) const fn new(alarm: Alarm) -> Self {
        Self {
            alarm,
            without: BTreeSet::new(),
        }
    }

    /// Notes whether a competition's step had a finite loss.
    pub(super) fn note(&mut self, competition: &CompetitionId, finite: bool) {
        if finite {
            return self.forget(competition);
        }
        self.without.insert(competition.clone());
        self.tell();
    }

    /// Forgets a competition that has no models any more, and so no loss that could be wrong.
    pub(super) fn forget(&mut self, competition: &CompetitionId) {
        self.without.remove(competition);
        self.tell();
    }

    /// Forgets every competition that is not among these.
    pub(super) fn keep<'c>(&mut self, competitions: impl Iterator<Item = &'c CompetitionId>) {
        let competitions: BTreeSet<&CompetitionId> = competitions.collect();
        self.without.retain(|id| competitions.contains(id));
        self.tell();
    }

    fn tell(&self) {
        let names: Vec<&str> = self.without.iter().map(|id| id.0.as_str()).collect();
        if names.is_empty() {
            return self.alarm.end();
        }
        self.alarm.raise(
            Health::Yellow,
            format_args!(
                "no model of competition {} has a finite loss",
                names.join(", ")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use report::{board::Board, status::Details};

    use super::*;

    #[test]
    fn each_competition_is_told_until_it_is_well_or_gone() {
        let (board, alarms) = Board::new(Details::default());
        let told = || board.status("test", Duration::ZERO).problems.join("; ");
        let mut losses = Losses::new(alarms.losses);
        let [l3, s1] = ["l3", "s1"].map(CompetitionId::from);
        losses.note(&l3, false);
        losses.note(&s1, true);
        assert_eq!(told(), "no model of competition l3 has a finite loss");
        losses.note(&s1, false);
        assert_eq!(told(), "no model of competition l3, s1 has a finite loss");
        losses.note(&l3, true);
        losses.keep([&l3, &s1].into_iter());
        assert_eq!(told(), "no model of competition s1 has a finite loss");
        losses.keep([&l3].into_iter());
        assert_eq!(told(), "");
        losses.note(&l3, false);
        losses.forget(&l3);
        assert_eq!(told(), "");
    }
}

//! From the switch to the verdict: probation, then accepted or taken back.

use std::time::Duration;

use super::UpdateTurn;
use crate::{
    error::Fault,
    update::{
        probation::{Baseline, Verdict, judge},
        state::{Outcome, Phase, Step, UpdateEffect, Version},
    },
};

/// Shown by `status` after a rollback by the operator.
const HOLD: &str = "kept at this release since you rolled back; `supervisor update` lifts that";

impl UpdateTurn<'_> {
    pub(super) fn switched(&mut self, answer: Result<(), Fault>) {
        match (self.state.phase.clone(), answer) {
            (
                Phase::Switching {
                    candidate,
                    baseline,
                },
                Ok(()),
            ) => {
                if self.state.accepted.is_none() {
                    // The first version has nothing to be compared with, or to go back to.
                    self.accept(candidate, "the first version");
                    self.run_wanted();
                } else {
                    self.state.phase = Phase::Probation {
                        candidate,
                        baseline,
                    };
                    self.state.ready = None;
                    self.run_wanted();
                }
            }
            (Phase::Switching { candidate, .. }, Err(fault)) => self.failed(&candidate, &fault),
            (Phase::RollingBack, Ok(())) => self.idle(self.interval()),
            (Phase::RollingBack, Err(fault)) => {
                self.state.problem = Some(fault.to_string());
                self.state.due = Some(self.now.at + Duration::from_secs(5));
            }
            _ => {}
        }
    }

    /// Goes on where the journal stopped; the child may have been adopted, or have failed while the
    /// journal could not be written.
    pub(super) fn resume_probation(&mut self) {
        self.run_wanted();
        if let Some(how) = self.now.failing.clone()
            && let Some(candidate) = self.state.candidate().cloned()
        {
            self.child_failed(&candidate.release, &how);
        } else {
            self.state.due = Some(match self.state.ready {
                Some(ready) => ready + self.policy.probation,
                None => self.now.at + self.policy.ready_timeout,
            });
        }
    }

    /// Its time begins here and not at the switch: the old version may take long to end.
    pub(super) fn child_started(&mut self, release: &str) {
        if let Phase::Probation { candidate, .. } = &self.state.phase
            && candidate.release == release
        {
            self.state.ready = None;
            self.state.due = Some(self.now.at + self.policy.ready_timeout);
        }
    }

    pub(super) fn extend(&mut self, by: Duration) {
        if matches!(self.state.phase, Phase::Probation { .. })
            && self.state.ready.is_none()
            && let Some(due) = &mut self.state.due
        {
            *due = (self.now.at + by).max(*due);
        }
    }

    pub(super) fn child_ready(&mut self, release: &str) {
        if let Phase::Probation { candidate, .. } = &self.state.phase
            && candidate.release == release
            && self.state.ready.is_none()
        {
            self.state.ready = Some(self.now.at);
            self.state.due = Some(self.now.at + self.policy.probation);
        }
    }

    pub(super) fn child_failed(&mut self, release: &str, how: &str) {
        if let Phase::Probation {
            candidate,
            baseline,
        } = self.state.phase.clone()
            && candidate.release == release
        {
            if baseline.failing.as_deref() == Some(how) {
                self.accept(
                    candidate,
                    "fails as the old version did, so it is not to blame",
                );
            } else {
                self.roll_back(&candidate, &format!("the new version failed: {how}"));
            }
        }
    }

    pub(super) fn examine(&mut self, candidate: Version, baseline: Baseline) {
        if self.now.up.as_ref() != Some(&candidate.release) {
            // Its start is yet to come, and says so.
            return;
        }
        let Some(ready) = self.state.ready else {
            if self.now.speaks {
                let limit = self.policy.ready_timeout.as_secs();
                self.roll_back(&candidate, &format!("not ready within {limit} s"));
            } else {
                // A child that does not speak sd_notify is ready when it stays up.
                self.child_ready(&candidate.release);
            }
            return;
        };
        let served = self.now.at.saturating_sub(ready);
        match judge(&baseline, self.now.health, served, self.policy.probation) {
            Verdict::Passed => self.accept(candidate, ""),
            Verdict::Degraded => self.accept(candidate, "accepted, although its health is yellow"),
            Verdict::Longer(by) => self.state.due = Some(self.now.at + by),
            Verdict::Worse => {
                self.roll_back(&candidate, "its health is worse than the old version's");
            }
        }
    }

    pub(super) fn accept(&mut self, candidate: Version, reason: &str) {
        self.record(&candidate, Outcome::Accepted, reason);
        self.state.problem = None;
        self.state.trust(&candidate);
        self.state.quarantine.clear_all();
        self.state.behind_since = None;
        if self
            .state
            .accepted
            .as_ref()
            .is_none_or(|old| old.release != candidate.release)
        {
            self.state.previous = self.state.accepted.take();
        }
        self.state.accepted = Some(candidate);
        self.state.phase = Phase::Accepting;
        self.accept_effects();
    }

    pub(super) fn accept_effects(&mut self) {
        self.state.due = None;
        if let Some(version) = self.state.accepted.clone() {
            self.start(Step::Accept(version));
        }
    }

    fn roll_back(&mut self, candidate: &Version, reason: &str) {
        self.record(candidate, Outcome::RolledBack, reason);
        self.state.quarantine.add(candidate, reason);
        self.state.problem = Some(reason.to_owned());
        self.state.phase = Phase::RollingBack;
        self.roll_back_effects();
    }

    pub(super) fn roll_back_effects(&mut self) {
        self.state.due = None;
        if let Some(version) = self.state.accepted.clone() {
            self.effects
                .push(UpdateEffect::Run(version.release.clone()));
            self.start(Step::Switch(version));
        }
    }

    pub(super) fn go_back(&mut self) {
        if self.state.phase != Phase::Idle {
            return;
        }
        if let (Some(previous), Some(accepted)) =
            (self.state.previous.clone(), self.state.accepted.clone())
        {
            self.state.previous = None;
            self.state.seen = self.now.at;
            self.state.seen_release.clear();
            self.state.accepted = Some(previous);
            self.state.hold = Some(HOLD.to_owned());
            self.roll_back(&accepted, "rolled back by the operator");
        }
    }
}

//! The life of an update as a pure function: (state, event, now) -> (state, effects).
//!
//! The supervisor journals the new state before it carries out the effects, and every effect may
//! be carried out twice: killed at any point, it starts again from the journal
//! ([`Event::Started`]) and comes to the same end.

use std::time::Duration;

use super::{
    probation::{Baseline, Verdict, judge},
    state::{Effect, Event, Haste, Note, Now, Outcome, Phase, Policy, Polled, State, Version},
};
use crate::error::{Blame, Fault};

/// Carries out one event.
pub fn step(mut state: State, event: Event, now: &Now, policy: &Policy) -> (State, Vec<Effect>) {
    let mut effects = Vec::new();
    let turn = Turn {
        state: &mut state,
        now,
        policy,
        effects: &mut effects,
    };
    turn.take(event);
    (state, effects)
}

struct Turn<'a> {
    state: &'a mut State,
    now: &'a Now,
    policy: &'a Policy,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn take(mut self, event: Event) {
        match event {
            Event::Started => self.recover(),
            Event::Tick => self.tick(),
            Event::Ask(haste) => self.ask(haste),
            Event::GoBack => self.go_back(),
            Event::Polled(answer) if self.state.phase == Phase::Polling => self.polled(answer),
            Event::Built(answer) => {
                if let Phase::Building { candidate } = self.state.phase.clone() {
                    match answer {
                        Ok(()) => self.test(candidate),
                        Err(fault) => self.failed(&candidate, &fault),
                    }
                }
            }
            Event::Tested(answer) => {
                if let Phase::Testing { candidate } = self.state.phase.clone() {
                    match answer {
                        Ok(()) => self.wait(candidate),
                        Err(fault) => self.failed(&candidate, &fault),
                    }
                }
            }
            Event::Switched(answer) => self.switched(answer),
            Event::Tidied if self.state.phase == Phase::Accepting => self.idle(self.interval()),
            Event::ChildReady(release) => self.child_ready(&release),
            Event::ChildFailed { release, how } => self.child_failed(&release, &how),
            Event::Polled(_) | Event::Tidied => {}
        }
    }

    fn recover(&mut self) {
        // What was built or awaited is found again by the next poll; what was switched is not.
        match self.state.phase.clone() {
            Phase::Switching { candidate, .. } => {
                self.run_wanted();
                self.effects.push(Effect::Switch(candidate));
            }
            Phase::Probation { .. } => {
                self.run_wanted();
                self.await_ready();
            }
            Phase::Accepting => {
                self.run_wanted();
                self.accept_effects();
            }
            Phase::RollingBack => self.roll_back_effects(),
            Phase::Idle
            | Phase::Polling
            | Phase::Building { .. }
            | Phase::Testing { .. }
            | Phase::Waiting { .. } => {
                self.run_wanted();
                self.idle(Duration::ZERO);
            }
        }
    }

    fn tick(&mut self) {
        if self.state.due.is_none_or(|due| due > self.now.at) {
            return;
        }
        self.state.due = None;
        match self.state.phase.clone() {
            Phase::Idle => self.poll(),
            Phase::Waiting { candidate } => self.switch_when_allowed(candidate),
            Phase::Probation {
                candidate,
                baseline,
            } => self.examine(candidate, baseline),
            Phase::RollingBack => self.roll_back_effects(),
            _ => {}
        }
    }

    fn ask(&mut self, haste: Haste) {
        self.state.haste = self.state.haste.max(haste);
        match self.state.phase.clone() {
            Phase::Idle => self.poll(),
            Phase::Polling => self.state.again = true,
            Phase::Waiting { candidate } => self.switch_when_allowed(candidate),
            _ => {}
        }
    }

    fn poll(&mut self) {
        self.state.phase = Phase::Polling;
        self.state.due = None;
        self.effects.push(Effect::Poll {
            forced: self.state.haste == Haste::Forced,
        });
    }

    fn polled(&mut self, answer: Result<Polled, Fault>) {
        let again = std::mem::take(&mut self.state.again);
        match answer {
            Ok(Polled::UpToDate) if again => self.poll(),
            Err(fault) => self.poll_failed(&fault),
            Ok(Polled::UpToDate) => {
                self.state.problem = None;
                self.state.failures = 0;
                self.idle(self.interval());
            }
            Ok(Polled::New(version) | Polled::NoRebuild(version))
                if self.quarantined(&version.commit) =>
            {
                self.state.problem = self.state.quarantine.reason(&version.commit);
                self.state.failures = 0;
                self.idle(self.interval());
            }
            Ok(Polled::NoRebuild(version)) => self.accept_unbuilt(version),
            Ok(Polled::New(candidate)) => {
                self.state.problem = None;
                self.state.seen = self.now.at;
                self.state.phase = Phase::Building {
                    candidate: candidate.clone(),
                };
                self.effects.push(Effect::Build(candidate));
            }
        }
    }

    fn quarantined(&self, commit: &str) -> bool {
        self.state.haste < Haste::Forced && self.state.quarantine.contains(commit)
    }

    fn poll_failed(&mut self, fault: &Fault) {
        let text = fault.to_string();
        let news = self.state.problem.as_deref() != Some(text.as_str());
        self.state.problem = Some(text.clone());
        if matches!(fault.blame, Blame::Outside | Blame::Machine) {
            self.state.failures = self.state.failures.saturating_add(1);
            self.idle(self.back_off());
        } else {
            if news && let Some(commit) = fault.commit.clone() {
                self.effects.push(Effect::Record(Note {
                    result: Outcome::Refused,
                    commit,
                    summary: String::new(),
                    signer: None,
                    seconds: 0,
                    reason: text,
                }));
            }
            self.idle(self.interval());
        }
    }

    fn accept_unbuilt(&mut self, version: Version) {
        self.state.problem = None;
        self.state.failures = 0;
        if let Some(accepted) = &mut self.state.accepted {
            accepted.commit.clone_from(&version.commit);
            accepted.summary.clone_from(&version.summary);
            accepted.signer.clone_from(&version.signer);
            self.state.trusted = Some(version.commit.clone());
            self.state.seen = self.now.at;
            self.record(
                &version,
                Outcome::AcceptedWithoutRestart,
                "no file of the build changed",
            );
        }
        self.idle(self.interval());
    }

    fn test(&mut self, candidate: Version) {
        self.state.phase = Phase::Testing {
            candidate: candidate.clone(),
        };
        self.effects.push(Effect::Test(candidate));
    }

    fn failed(&mut self, candidate: &Version, fault: &Fault) {
        let text = fault.to_string();
        self.state.problem = Some(text.clone());
        if matches!(fault.blame, Blame::Outside | Blame::Machine) {
            self.state.failures = self.state.failures.saturating_add(1);
            self.idle(self.back_off());
        } else {
            self.state.quarantine.add(&candidate.commit, &text);
            self.record(candidate, Outcome::Failed, &text);
            self.idle(self.interval());
        }
    }

    fn wait(&mut self, candidate: Version) {
        self.state.failures = 0;
        self.state.give_up = None;
        self.state.phase = Phase::Waiting {
            candidate: candidate.clone(),
        };
        self.switch_when_allowed(candidate);
    }

    fn switch_when_allowed(&mut self, candidate: Version) {
        let at = self.now.at;
        let hurry = self.state.haste > Haste::None || self.state.accepted.is_none();
        let mut delay = Duration::ZERO;
        self.state.awaits = None;
        if !hurry {
            let hold_off = (self.state.seen + self.policy.hold_off).saturating_sub(at);
            delay = hold_off.max(self.now.window_in);
            let window = self.now.window_in > hold_off;
            let what = if window {
                "the window"
            } else {
                "this node's turn (hold-off)"
            };
            self.state.awaits = (!delay.is_zero()).then(|| what.to_owned());
        }
        if delay.is_zero()
            && self.state.haste < Haste::Forced
            && let Some(reason) = &self.now.unsafe_because
        {
            let give_up = *self.state.give_up.get_or_insert(at + self.policy.max_wait);
            delay = give_up.saturating_sub(at).min(Duration::from_secs(1));
            self.state.awaits = Some(format!("a safe point: {reason}"));
        }
        if !delay.is_zero() {
            self.state.due = Some(at + delay);
            return;
        }
        self.state.awaits = None;
        let baseline = Baseline {
            health: self.now.health,
            failing: self.now.failing.clone(),
        };
        self.state.due = None;
        self.state.haste = Haste::None;
        self.state.phase = Phase::Switching {
            candidate: candidate.clone(),
            baseline,
        };
        self.effects.push(Effect::Switch(candidate));
    }

    fn switched(&mut self, answer: Result<(), Fault>) {
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
                    self.run_wanted();
                    self.await_ready();
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

    fn await_ready(&mut self) {
        self.state.ready = None;
        self.state.due = Some(self.now.at + self.policy.ready_timeout);
    }

    fn child_ready(&mut self, release: &str) {
        if let Phase::Probation { candidate, .. } = &self.state.phase
            && candidate.release == release
            && self.state.ready.is_none()
        {
            self.state.ready = Some(self.now.at);
            self.state.due = Some(self.now.at + self.policy.probation);
        }
    }

    fn child_failed(&mut self, release: &str, how: &str) {
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

    fn examine(&mut self, candidate: Version, baseline: Baseline) {
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

    fn accept(&mut self, candidate: Version, reason: &str) {
        self.record(&candidate, Outcome::Accepted, reason);
        self.state.problem = None;
        self.state.trusted = Some(candidate.commit.clone());
        self.state.quarantine.clear_all();
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

    fn accept_effects(&mut self) {
        self.state.due = None;
        if let Some(version) = self.state.accepted.clone() {
            self.effects.push(Effect::Accept(version));
        }
    }

    fn roll_back(&mut self, candidate: &Version, reason: &str) {
        self.record(candidate, Outcome::RolledBack, reason);
        self.state.quarantine.add(&candidate.commit, reason);
        self.state.problem = Some(reason.to_owned());
        self.state.phase = Phase::RollingBack;
        self.roll_back_effects();
    }

    fn roll_back_effects(&mut self) {
        self.state.due = None;
        if let Some(version) = self.state.accepted.clone() {
            self.effects.push(Effect::Run(version.release.clone()));
            self.effects.push(Effect::Switch(version));
        }
    }

    fn go_back(&mut self) {
        if self.state.phase != Phase::Idle {
            return;
        }
        if let (Some(previous), Some(accepted)) =
            (self.state.previous.take(), self.state.accepted.take())
        {
            self.state.seen = self.now.at;
            self.state.accepted = Some(previous);
            self.roll_back(&accepted, "rolled back by the operator");
        }
    }

    fn idle(&mut self, delay: Duration) {
        self.state.phase = Phase::Idle;
        self.state.give_up = None;
        self.state.haste = Haste::None;
        // Without any version there is nothing to run, so the first is built in any case.
        let looks = self.policy.updates || self.state.accepted.is_none();
        self.state.due = looks.then_some(self.now.at + delay);
    }

    fn interval(&self) -> Duration {
        self.policy.interval + self.policy.jitter
    }

    fn back_off(&self) -> Duration {
        let doublings = self.state.failures.saturating_sub(1).min(10);
        (Duration::from_secs(5) * 2_u32.pow(doublings)).min(self.interval())
    }

    fn run_wanted(&mut self) {
        if let Some(release) = self.state.wanted() {
            self.effects.push(Effect::Run(release.to_owned()));
        }
    }

    fn record(&mut self, version: &Version, result: Outcome, reason: &str) {
        self.effects.push(Effect::Record(Note {
            result,
            commit: version.commit.clone(),
            summary: version.summary.clone(),
            signer: version.signer.clone(),
            seconds: self.now.at.saturating_sub(self.state.seen).as_secs(),
            reason: reason.to_owned(),
        }));
    }
}

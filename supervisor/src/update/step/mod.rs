//! The life of an update as a pure function: (state, event, now) -> (state, effects).
//!
//! The supervisor journals the new state before it carries out the effects, and every effect may
//! be carried out twice: killed at any point, it starts again from the journal
//! ([`UpdateEvent::Started`]) and comes to the same end.

mod candidate;
mod trial;

use std::time::Duration;

use shared::back_off::BackOff;

use super::state::{
    Note, Outcome, Phase, Step, UpdateEffect, UpdateEvent, UpdateNow, UpdatePolicy, UpdateState,
    Urgency, Version,
};

/// After the first failure of a poll or a build; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

pub fn step(
    mut state: UpdateState,
    event: UpdateEvent,
    now: &UpdateNow,
    policy: &UpdatePolicy,
) -> (UpdateState, Vec<UpdateEffect>) {
    let mut effects = Vec::new();
    let turn = UpdateTurn {
        state: &mut state,
        now,
        policy,
        effects: &mut effects,
    };
    turn.take(event);
    (state, effects)
}

struct UpdateTurn<'a> {
    state: &'a mut UpdateState,
    now: &'a UpdateNow,
    policy: &'a UpdatePolicy,
    effects: &'a mut Vec<UpdateEffect>,
}

impl UpdateTurn<'_> {
    fn take(mut self, event: UpdateEvent) {
        match event {
            UpdateEvent::Started => self.recover(),
            UpdateEvent::Tick => self.tick(),
            UpdateEvent::Ask { urgency, local } => {
                self.state.ask_local |= local;
                self.ask(urgency);
            }
            UpdateEvent::GoBack => self.go_back(),
            UpdateEvent::Polled { upstream, found } => {
                if let Some(upstream) = upstream {
                    self.state.upstream = upstream;
                }
                if self.state.phase == Phase::Polling {
                    self.polled(found);
                }
            }
            UpdateEvent::Built(answer) => {
                if let Phase::Building { candidate } = self.state.phase.clone() {
                    match answer {
                        Ok(()) => self.test(candidate),
                        Err(fault) => self.failed(&candidate, &fault),
                    }
                }
            }
            UpdateEvent::Tested(answer) => {
                if let Phase::Testing { candidate } = self.state.phase.clone() {
                    match answer {
                        Ok(()) => self.wait(candidate),
                        Err(fault) => self.failed(&candidate, &fault),
                    }
                }
            }
            UpdateEvent::Switched(answer) => self.switched(answer),
            UpdateEvent::Tidied if self.state.phase == Phase::Accepting => {
                self.idle(self.interval());
            }
            UpdateEvent::Extend(by) => self.extend(by),
            UpdateEvent::ChildStarted(release) => self.child_started(&release),
            UpdateEvent::ChildReady(release) => self.child_ready(&release),
            UpdateEvent::ChildFailed { release, how } => self.child_failed(&release, &how),
            UpdateEvent::Tidied => {}
        }
    }

    fn recover(&mut self) {
        // What was built or awaited is found again by the next poll; what was switched is not.
        match self.state.phase.clone() {
            Phase::Switching { candidate, .. } => {
                self.run_wanted();
                self.start(Step::Switch(candidate));
            }
            Phase::Probation { .. } => self.resume_probation(),
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

    fn ask(&mut self, urgency: Urgency) {
        self.state.urgency = self.state.urgency.max(urgency);
        if urgency > Urgency::Routine {
            self.state.hold = None;
        }
        match self.state.phase.clone() {
            Phase::Idle => self.poll(),
            Phase::Polling => self.state.again = true,
            Phase::Waiting { candidate } => self.switch_when_allowed(candidate),
            _ => {}
        }
    }

    fn poll(&mut self) {
        self.state.phase = Phase::Polling;
        self.state.polled_local = std::mem::take(&mut self.state.ask_local);
        self.state.due = None;
        self.start(Step::Poll {
            forced: self.state.urgency == Urgency::Forced,
            local: self.state.polled_local,
        });
    }

    fn idle(&mut self, delay: Duration) {
        self.state.phase = Phase::Idle;
        self.state.give_up = None;
        self.state.urgency = Urgency::Routine;
        // Without any version there is nothing to run, so the first is built in any case.
        let looks = self.policy.updates || self.state.accepted.is_none();
        self.state.due = if self.state.ask_local {
            Some(self.now.at)
        } else {
            looks.then_some(self.now.at + delay)
        };
    }

    fn start(&mut self, step: Step) {
        self.effects.push(UpdateEffect::Start(step));
    }

    fn interval(&self) -> Duration {
        self.policy.interval + self.policy.jitter
    }

    fn back_off(&self) -> Duration {
        let pauses = BackOff {
            first: FIRST_PAUSE,
            longest: self.interval(),
        };
        pauses.after(self.state.failures.max(1))
    }

    fn run_wanted(&mut self) {
        if let Some(release) = self.state.wanted() {
            self.effects.push(UpdateEffect::Run(release.to_owned()));
        }
    }

    fn record(&mut self, version: &Version, result: Outcome, reason: &str) {
        self.effects.push(UpdateEffect::Record(Note {
            result,
            commit: version.commit.clone(),
            summary: version.summary.clone(),
            // Nobody signed what is the operator's own.
            signer: version.signer.clone().filter(|_| version.local.is_empty()),
            seconds: self.now.at.saturating_sub(self.state.seen).as_secs(),
            reason: reason.to_owned(),
        }));
    }
}

//! From what the remote had to a candidate that is built, tested and waits for its moment.

use std::time::Duration;

use shared::back_off::BackOff;

use super::{FIRST_PAUSE, UpdateTurn};
use crate::{
    error::{Blame, Fault},
    update::{
        probation::Baseline,
        state::{Note, Outcome, Phase, Polled, Retry, Step, UpdateEffect, Urgency, Version},
    },
};

/// Longest time without a look at the clock while the window is closed.
const LOOK_AGAIN: Duration = Duration::from_mins(15);
/// Before a version that failed through no fault of its own is tried again.
const BUILD_PAUSES: BackOff = BackOff {
    first: FIRST_PAUSE,
    longest: Duration::from_hours(6),
};
/// Age from which on what upstream said is asked for again before a switch.
const STALE: Duration = Duration::from_mins(1);
/// Hold-offs after which a node switches to whatever is newest: where commits never stop, each would
/// begin another.
const MAX_HOLD_OFFS: u32 = 4;

impl UpdateTurn<'_> {
    pub(super) fn polled(&mut self, answer: Result<Polled, Fault>) {
        if std::mem::take(&mut self.state.again) {
            // What set out before the request does not answer it: upstream may have moved since.
            self.state.ask_local |= self.state.polled_local;
            return self.poll();
        }
        if answer.is_ok() {
            self.state.looked = self.now.at;
        }
        if let Ok(Polled::New(version) | Polled::NoRebuild(version)) = &answer
            && self.state.polled_local
        {
            let local = version.local.iter();
            self.state.requested = local.map(|change| change.commit.clone()).collect();
        }
        match answer {
            Err(fault) => self.poll_failed(&fault),
            Ok(Polled::UpToDate) => {
                self.state.problem = None;
                self.state.failures = 0;
                self.state.behind_since = None;
                self.idle(self.interval());
            }
            Ok(Polled::New(version) | Polled::NoRebuild(version)) if self.is_held(&version) => {
                self.state.failures = 0;
                self.idle(self.interval());
            }
            Ok(Polled::New(version) | Polled::NoRebuild(version))
                if self.quarantined(&version).is_some() =>
            {
                self.state.problem = self.quarantined(&version);
                self.state.failures = 0;
                self.idle(self.interval());
            }
            Ok(Polled::NoRebuild(version)) => self.accept_unbuilt(version),
            Ok(Polled::New(candidate)) => self.build(candidate),
        }
    }

    /// A release that should run and was lost is built again all the same.
    fn is_held(&self, version: &Version) -> bool {
        let accepted = self.state.accepted.as_ref();
        self.state.hold.is_some()
            && accepted.is_some_and(|accepted| accepted.release != version.release)
    }

    fn quarantined(&self, version: &Version) -> Option<String> {
        let insists = self.state.urgency == Urgency::Forced;
        self.state.quarantine.reason(version).filter(|_| !insists)
    }

    fn build(&mut self, candidate: Version) {
        match &self.state.retry {
            // Others are looked for meanwhile.
            Some(retry)
                if retry.identity == candidate.identity()
                    && retry.at > self.now.at
                    && self.state.urgency == Urgency::Routine =>
            {
                let pause = retry.at.saturating_sub(self.now.at);
                return self.idle(pause.min(self.interval()));
            }
            Some(retry) if retry.identity == candidate.identity() => {}
            _ => {
                self.state.retry = None;
                self.state.problem = None;
            }
        }
        // The same one again, if upstream was only asked whether it still stands.
        if self.state.seen_release != candidate.release {
            self.state.seen = self.now.at;
            self.state.seen_release.clone_from(&candidate.release);
            self.state.give_up = None;
        }
        self.state.behind_since.get_or_insert(self.now.at);
        self.state.phase = Phase::Building {
            candidate: candidate.clone(),
        };
        self.start(Step::Build(candidate));
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
                self.effects.push(UpdateEffect::Record(Note {
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
            accepted.left_out.clone_from(&version.left_out);
            self.state.trust(&version);
            self.state.seen = self.now.at;
            self.state.seen_release.clear();
            self.state.behind_since = None;
            self.record(
                &version,
                Outcome::AcceptedWithoutRestart,
                "no file of the build changed",
            );
        }
        self.idle(self.interval());
    }

    pub(super) fn test(&mut self, candidate: Version) {
        self.state.phase = Phase::Testing {
            candidate: candidate.clone(),
        };
        self.start(Step::Test(candidate));
    }

    pub(super) fn failed(&mut self, candidate: &Version, fault: &Fault) {
        let text = fault.to_string();
        self.state.problem = Some(text.clone());
        if matches!(fault.blame, Blame::Outside | Blame::Machine) {
            self.state.failures = self.state.failures.saturating_add(1);
            self.retry_later(candidate);
        } else {
            self.state.quarantine.add(candidate, &text);
            // What is refused after a download is refused for its signature: nobody signed it.
            let mut noted = candidate.clone();
            noted.signer = noted.signer.filter(|_| fault.blame != Blame::Refused);
            self.record(&noted, Outcome::Failed, &text);
            self.idle(self.interval());
        }
    }

    /// Each time later: a build costs more than a poll.
    fn retry_later(&mut self, candidate: &Version) {
        let before = self.state.retry.take();
        let same = before.filter(|retry| retry.identity == candidate.identity());
        let failures = same.map_or(0, |retry| retry.failures).saturating_add(1);
        let pause = BUILD_PAUSES.after(failures);
        self.state.retry = Some(Retry {
            identity: candidate.identity().to_owned(),
            failures,
            at: self.now.at + pause,
        });
        self.idle(pause.min(self.interval()));
    }

    pub(super) fn wait(&mut self, candidate: Version) {
        self.state.failures = 0;
        self.state.retry = None;
        self.state.problem = None;
        if self.state.wanted() == Some(&candidate.release) {
            // It was only put back where somebody had removed it.
            return self.idle(self.interval());
        }
        self.state.phase = Phase::Waiting {
            candidate: candidate.clone(),
        };
        self.switch_when_allowed(candidate);
    }

    pub(super) fn switch_when_allowed(&mut self, candidate: Version) {
        let at = self.now.at;
        let hurry = self.state.urgency > Urgency::Routine || self.state.accepted.is_none();
        let mut delay = Duration::ZERO;
        self.state.awaits = None;
        if !hurry {
            let behind_since = self.state.behind_since.unwrap_or(self.state.seen);
            let latest = behind_since + self.policy.hold_off * MAX_HOLD_OFFS;
            let hold_off = (self.state.seen + self.policy.hold_off).min(latest);
            let hold_off = hold_off.saturating_sub(at);
            delay = hold_off.max(self.now.window_in);
            let window = self.now.window_in > hold_off;
            let what = if window {
                "the window"
            } else {
                "this node's turn (hold-off)"
            };
            self.state.awaits = (!delay.is_zero()).then(|| what.to_owned());
        }
        // What upstream has taken back meanwhile stops whoever has not switched yet.
        let waits = self.state.give_up.is_some();
        let stale = if waits { self.interval() } else { STALE };
        if !hurry && delay.is_zero() && self.state.looked + stale <= at {
            return self.poll();
        }
        if delay.is_zero()
            && self.state.urgency < Urgency::Forced
            && let Some(reason) = &self.now.unsafe_because
        {
            let give_up = *self.state.give_up.get_or_insert(at + self.policy.max_wait);
            delay = give_up.saturating_sub(at).min(Duration::from_secs(1));
            self.state.awaits = Some(format!("a safe point: {reason}"));
        }
        if !delay.is_zero() {
            // The clock on the wall, which the window goes by, may be set in the meantime.
            self.state.due = Some(at + delay.min(LOOK_AGAIN));
            return;
        }
        self.state.awaits = None;
        let baseline = Baseline {
            health: self.now.health,
            failing: self.now.failing.clone(),
        };
        self.state.due = None;
        self.state.urgency = Urgency::Routine;
        self.state.phase = Phase::Switching {
            candidate: candidate.clone(),
            baseline,
        };
        self.start(Step::Switch(candidate));
    }
}

//! One turn of the update: what it is, what happens, what comes of it.

use std::time::Duration;

use supervisor::{
    error::{Blame, Fault},
    update::{
        state::{
            Note, Outcome, Phase, Polled, Step, UpdateEffect, UpdateEvent, UpdateNow, UpdatePolicy,
            UpdateState, Version,
        },
        step::step,
    },
};

use super::{policy, version};

pub(super) const ROUTINE_POLL: Step = Step::Poll {
    forced: false,
    local: false,
};

/// An update at a time of its own.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) state: UpdateState,
    pub(super) now: UpdateNow,
    pub(super) policy: UpdatePolicy,
}

impl Turn {
    /// Nothing has ever run; second 1,000.
    pub(super) fn first() -> Self {
        let now = UpdateNow {
            at: seconds(1000),
            ..UpdateNow::default()
        };
        Self {
            state: UpdateState::default(),
            now,
            policy: policy(),
        }
    }

    /// Version 1 runs, and upstream has just been looked at.
    pub(super) fn with_a_version() -> Self {
        let mut turn = Self::first();
        turn.state.accepted = Some(version(1));
        turn.state.looked = turn.now.at;
        turn
    }

    pub(super) fn take(&mut self, event: UpdateEvent) -> Vec<UpdateEffect> {
        let (state, effects) = step(self.state.clone(), event, &self.now, &self.policy);
        self.state = state;
        effects
    }

    /// A poll ends so.
    pub(super) fn polled(&mut self, found: Result<Polled, Fault>) -> Vec<UpdateEffect> {
        self.state.phase = Phase::Polling;
        let upstream = None;
        self.take(UpdateEvent::Polled { upstream, found })
    }

    /// The clock is set, and it is looked whether something is due.
    pub(super) fn tick(&mut self, at: u64) -> Vec<UpdateEffect> {
        self.now.at = seconds(at);
        self.take(UpdateEvent::Tick)
    }

    /// Second at which it wants to be woken.
    pub(super) fn due(&self) -> Option<u64> {
        self.state.due.map(|due| due.as_secs())
    }

    /// Commits in quarantine.
    pub(super) fn quarantined(&self) -> Vec<&str> {
        let entries = self.state.quarantine.iter();
        entries.map(|(commit, _)| commit).collect()
    }
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn fault(blame: Blame) -> Fault {
    Fault::new(blame, "bad luck")
}

pub(super) fn start(step: Step) -> UpdateEffect {
    UpdateEffect::Start(step)
}

pub(super) fn run(release: &str) -> UpdateEffect {
    UpdateEffect::Run(release.to_owned())
}

/// An entry of the history, so many seconds after the version was first seen.
pub(super) fn record(
    result: Outcome,
    version: &Version,
    seconds: u64,
    reason: &str,
) -> UpdateEffect {
    UpdateEffect::Record(Note {
        result,
        commit: version.commit.clone(),
        summary: version.summary.clone(),
        signer: version.signer.clone(),
        seconds,
        reason: reason.to_owned(),
    })
}

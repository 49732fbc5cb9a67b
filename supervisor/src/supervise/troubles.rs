//! What people are called for beside the outcomes of updates: the child that fails or is gone, updates that stay away.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use shared::{
    notices::{Notice, Notices, Problem},
    status::Health,
};

use super::machine::Machine;
use crate::{
    child::state::{ChildState, DownReason, Stage},
    trouble::Trouble,
    update::state::Phase,
};

/// So many failures in a row are a loop.
const LOOP: u32 = 3;

/// What is wrong, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    open: BTreeMap<Trouble, Problem>,
    notices: Notices<Trouble>,
}

impl Troubles {
    /// Looks at what is; returns what people are to be told now. `at` is the time since the supervisor began.
    pub(super) fn look(
        &mut self,
        machine: &Machine,
        at: Duration,
        now: Timestamp,
    ) -> Vec<Notice<Trouble>> {
        let building = machine.update().phase != Phase::Idle;
        let found = found(machine.child(), building, machine.problem(), at);
        self.tell(found, now)
    }

    fn tell(&mut self, found: BTreeMap<Trouble, String>, now: Timestamp) -> Vec<Notice<Trouble>> {
        self.open.retain(|trouble, _| found.contains_key(trouble));
        for (trouble, text) in found {
            let health = match trouble {
                Trouble::Updates => Health::Yellow,
                _ => Health::Red,
            };
            let problem = self.open.entry(trouble).or_insert_with(|| Problem {
                health,
                since: now,
                text: String::new(),
            });
            problem.text = text;
        }
        let call = |trouble: Trouble| Some(trouble.call());
        self.notices.due(&self.open, call, now)
    }

    /// Returns whether time alone may be a reason to tell something.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty() || self.notices.is_open()
    }
}

/// Says what is wrong with a child and with its updates.
fn found(
    child: &ChildState,
    building: bool,
    problem: Option<&str>,
    at: Duration,
) -> BTreeMap<Trouble, String> {
    let mut found = BTreeMap::new();
    if child.halted {
        return found;
    }
    let last = child.last_failure.as_deref().unwrap_or("unknown");
    let failures = child.failures_in_a_row(at);
    if failures >= LOOP {
        let text = format!("the child failed {failures} times in a row, the last time: {last}");
        found.insert(Trouble::CrashLoop, text);
    }
    match &child.stage {
        Stage::Down(DownReason::Misconfigured) => {
            let text = format!("the child says that its configuration is wrong: {last}");
            found.insert(Trouble::Misconfigured, text);
        }
        // The first build takes as long as it takes.
        Stage::Down(DownReason::NothingBuilt) if building => {}
        Stage::Down(DownReason::NothingBuilt) => {
            found.insert(Trouble::Down, "nothing is built that could run".to_owned());
        }
        Stage::Down(DownReason::BackOff { how, .. }) => {
            found.insert(Trouble::Down, format!("the child does not run: {how}"));
        }
        _ => {}
    }
    if let Some(problem) = problem {
        found.insert(Trouble::Updates, format!("no updates: {problem}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::state::RunningChild;

    fn up(since: u64, failures: u32) -> ChildState {
        let mut child = ChildState {
            stage: Stage::Up(RunningChild {
                pid: 1,
                release: String::new(),
                since: Duration::from_secs(since),
                ready: true,
            }),
            last_failure: Some("exit code 1".to_owned()),
            ..ChildState::default()
        };
        for _ in 0..failures {
            child.backoff.after(Duration::ZERO, 0);
        }
        child
    }

    fn down(reason: DownReason) -> ChildState {
        ChildState {
            stage: Stage::Down(reason),
            ..ChildState::default()
        }
    }

    fn causes(child: &ChildState, building: bool, at: u64) -> Vec<Trouble> {
        let found = found(child, building, None, Duration::from_secs(at));
        found.into_keys().collect()
    }

    #[test]
    fn a_loop_is_three_failures_in_a_row_until_the_child_has_run_for_a_minute() {
        assert_eq!(causes(&up(0, 2), false, 1), []);
        assert_eq!(causes(&up(0, 3), false, 59), [Trouble::CrashLoop]);
        assert_eq!(causes(&up(0, 3), false, 60), []);
    }

    #[test]
    fn a_child_is_down_unless_it_is_being_built_or_was_told_to_stop() {
        assert_eq!(causes(&down(DownReason::NothingBuilt), true, 0), []);
        let never = down(DownReason::NothingBuilt);
        assert_eq!(causes(&never, false, 0), [Trouble::Down]);
        let waits = DownReason::BackOff {
            until: Duration::MAX,
            how: "killed".to_owned(),
        };
        assert_eq!(causes(&down(waits), false, 0), [Trouble::Down]);
        let refuses = down(DownReason::Misconfigured);
        assert_eq!(causes(&refuses, false, 0), [Trouble::Misconfigured]);
        let stopped = ChildState {
            halted: true,
            ..refuses
        };
        assert_eq!(causes(&stopped, false, 0), []);
    }

    #[test]
    fn a_child_that_is_down_is_told_after_five_minutes_and_when_it_is_back() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
        let down = || found(&down(DownReason::NothingBuilt), false, None, Duration::ZERO);
        let mut troubles = Troubles::default();
        let mut told = Vec::new();
        for minute in 0..20 {
            let now = if minute < 10 { down() } else { BTreeMap::new() };
            let notices = troubles.tell(now, at(minute));
            told.extend(notices.into_iter().map(|notice| (minute, notice.health)));
        }
        assert_eq!(told, [(5, Some(Health::Red)), (12, None)]);
        assert!(!troubles.is_open());
    }
}

//! What people are called for beside the outcomes of updates: the child that fails or is gone, updates that stay away.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use shared::{
    notices::{Notice, Notices, Problem},
    status::Health,
};

use super::machine::Machine;
use crate::{
    child::state::{DownReason, Stage},
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
        let found = found(machine, at);
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

fn found(machine: &Machine, at: Duration) -> BTreeMap<Trouble, String> {
    let child = machine.child();
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
        Stage::Down(DownReason::NothingBuilt) if machine.update().phase != Phase::Idle => {}
        Stage::Down(DownReason::NothingBuilt) => {
            found.insert(Trouble::Down, "nothing is built that could run".to_owned());
        }
        Stage::Down(DownReason::BackOff { how, .. }) => {
            found.insert(Trouble::Down, format!("the child does not run: {how}"));
        }
        _ => {}
    }
    if let Some(problem) = machine.problem() {
        found.insert(Trouble::Updates, format!("no updates: {problem}"));
    }
    found
}

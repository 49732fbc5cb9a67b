//! What `status` shows: a snapshot of the child and of its updates.

use super::Supervisor;
use crate::{
    child::{
        health,
        state::{DownReason, Stage},
    },
    report::{ChildReport, FORMAT, ProcessReport, Report, UpdateReport},
};

impl Supervisor {
    pub(super) fn report(&self) -> Report {
        Report {
            format: FORMAT,
            name: self.config.child_name.clone(),
            supervisor: ProcessReport {
                pid: std::process::id(),
                version: self.version.clone(),
                uptime: self.now().as_secs(),
                manager: self.config.manager.map(|manager| manager.to_string()),
            },
            child: self.child_report(),
            update: self.update_report(),
            log: self.config.child_log().display().to_string(),
        }
    }

    fn child_report(&self) -> ChildReport {
        let child = self.machine.child();
        let running = child.running();
        let status =
            running.and_then(|child| health::read_status(&self.config.home.status(), child.pid));
        let (state, reason) = describe(&child.stage, self.notified.speaks);
        ChildReport {
            state: state.to_owned(),
            reason,
            pid: running.map(|child| child.pid),
            release: running.map(|child| child.release.clone()),
            uptime: running.map(|child| self.now().saturating_sub(child.since).as_secs()),
            restarts: child.restarts,
            last_failure: child.last_failure.clone(),
            says: self.notified.status.clone(),
            phase: status.as_ref().map(|status| status.phase.clone()),
            health: status.as_ref().map(|status| status.health),
            problems: status
                .as_ref()
                .map(|s| s.problems.clone())
                .unwrap_or_default(),
            restart: status.as_ref().map(|status| status.restart.clone()),
            details: status.map(|status| status.details).unwrap_or_default(),
        }
    }

    fn update_report(&self) -> UpdateReport {
        let state = self.machine.update();
        let next = state
            .due
            .map(|due| due.saturating_sub(self.now()).as_secs());
        UpdateReport {
            phase: state.phase.name().to_owned(),
            progress: self
                .progress
                .clone()
                .or_else(|| state.awaits.as_ref().map(|what| format!("for {what}"))),
            accepted: state.accepted.clone(),
            previous: state.previous.clone(),
            candidate: state.candidate().cloned(),
            problem: self.machine.problem().map(str::to_owned),
            quarantine: state
                .quarantine
                .iter()
                .map(|(commit, why)| (commit.to_owned(), why.to_owned()))
                .collect(),
            polled_at: self.polled_at.map(|time| time.to_string()),
            next_in: next,
            enabled: self.config.policy.updates,
        }
    }
}

/// A child that does not speak sd_notify counts as running when it is up.
fn describe(stage: &Stage, speaks: bool) -> (&'static str, Option<String>) {
    match stage {
        Stage::Up(child) if child.ready || !speaks => ("running", None),
        Stage::Up(_) | Stage::Starting(_) => ("starting", None),
        Stage::Stopping { .. } | Stage::Sweeping { .. } => ("stopping", None),
        Stage::Down(DownReason::BackOff { how, .. }) => {
            ("waiting", Some(format!("{how}; trying again")))
        }
        Stage::Down(DownReason::Misconfigured) => {
            let text =
                "it says that its configuration is wrong; mend it, then `supervisor restart`";
            ("misconfigured", Some(text.to_owned()))
        }
        Stage::Down(DownReason::NothingBuilt) => ("down", Some("nothing is built yet".to_owned())),
        Stage::Down(DownReason::Replacing) => {
            ("down", Some("a new one is being started".to_owned()))
        }
        Stage::Down(DownReason::Halted) => ("down", Some("stopped".to_owned())),
    }
}

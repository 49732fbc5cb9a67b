//! What `status` shows: a snapshot of the child and of its updates.

use super::Supervisor;
use crate::{
    child::{
        group, health,
        state::{DownReason, Stage},
    },
    config::Source,
    report::{CheckoutReport, ChildReport, FORMAT, ProcessReport, Report, UpdateReport},
};

impl Supervisor {
    pub(super) fn report(&self) -> Report {
        Report {
            format: FORMAT,
            name: self.config.child_name.clone(),
            supervisor: Some(ProcessReport {
                pid: std::process::id(),
                version: self.version.clone(),
                uptime: self.now().as_secs(),
                manager: self.config.manager.map(|manager| manager.to_string()),
            }),
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
            cgroup: running.and_then(|child| group::holding(&self.config.home, child.pid)),
            no_cgroup: self.group.as_ref().err().cloned(),
            restarts: child.restarts,
            last_failure: child.last_failure.clone(),
            says: self.notified.status.clone(),
            ..ChildReport::of(status)
        }
    }

    fn update_report(&self) -> UpdateReport {
        let state = self.machine.update();
        let next = state
            .due
            .map(|due| due.saturating_sub(self.now()).as_secs());
        UpdateReport {
            progress: self
                .progress
                .clone()
                .or_else(|| state.awaits.as_ref().map(|what| format!("for {what}"))),
            problem: self.machine.problem().map(str::to_owned),
            checkout: match self.config.source {
                Source::Git(_) => Some(CheckoutReport {
                    path: self.config.repo.clone(),
                    behind: None,
                }),
                Source::Releases(_) => None,
            },
            polled_at: self.polled_at.map(|time| time.to_string()),
            next_in: next,
            enabled: self.config.policy.updates,
            ..UpdateReport::of(state)
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

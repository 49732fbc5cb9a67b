//! The life of the child as a pure function: (state, event, now) -> (state, effects). There is
//! never more than one child.
//!
//! A start is possible from [`Stage::Down`] only, and the way there leads through
//! [`Stage::Sweeping`], which ends when the process group of the last child is empty.

use std::time::Duration;

use super::state::{
    ChildEffect, ChildEvent, ChildNow, ChildPolicy, ChildState, DownReason, RunningChild, Stage,
};

/// The exit code of a child whose configuration is wrong.
const CONFIG_EXIT: i32 = shared::Exit::Config as i32;

pub fn step(
    mut state: ChildState,
    event: ChildEvent,
    now: &ChildNow,
    policy: &ChildPolicy,
) -> (ChildState, Vec<ChildEffect>) {
    let mut effects = Vec::new();
    let turn = ChildTurn {
        state: &mut state,
        now,
        policy,
        effects: &mut effects,
    };
    turn.take(event);
    (state, effects)
}

struct ChildTurn<'a> {
    state: &'a mut ChildState,
    now: &'a ChildNow,
    policy: &'a ChildPolicy,
    effects: &'a mut Vec<ChildEffect>,
}

impl ChildTurn<'_> {
    fn take(mut self, event: ChildEvent) {
        match event {
            ChildEvent::Want(release) => self.want(release),
            ChildEvent::Adopted { pid, release } => {
                self.up(pid, release.clone(), true);
                self.effects.push(ChildEffect::Ready(release));
                self.settle();
            }
            ChildEvent::Restart => {
                self.state.backoff.reset();
                match self.state.stage {
                    Stage::Up(_) => self.stop(),
                    Stage::Down(_) => self.start(),
                    Stage::Starting(_) | Stage::Stopping { .. } | Stage::Sweeping { .. } => {}
                }
            }
            ChildEvent::Halt => {
                self.state.halted = true;
                match &mut self.state.stage {
                    Stage::Up(_) => self.stop(),
                    Stage::Down(reason) | Stage::Sweeping { then: reason, .. } => {
                        *reason = DownReason::Halted;
                    }
                    Stage::Starting(_) | Stage::Stopping { .. } => {}
                }
            }
            ChildEvent::Kill => {
                if let Stage::Up(child) | Stage::Stopping { child, .. } = &self.state.stage {
                    self.effects.push(ChildEffect::KillGroup(child.pid));
                }
            }
            ChildEvent::Spawned(pid) => {
                if let Stage::Starting(release) = self.state.stage.clone() {
                    self.up(pid, release.clone(), false);
                    self.effects.push(ChildEffect::Started(release));
                    self.settle();
                }
            }
            ChildEvent::SpawnFailed { how, lost } => {
                self.failed(Duration::ZERO, how, None);
                if lost {
                    self.effects.push(ChildEffect::Lost);
                }
                self.settle();
            }
            ChildEvent::Exited { how, code } => self.exited(how, code),
            ChildEvent::Ready => {
                if let Stage::Up(child) = &mut self.state.stage
                    && !child.ready
                {
                    child.ready = true;
                    self.effects.push(ChildEffect::Ready(child.release.clone()));
                }
            }
            ChildEvent::Hung => {
                if let Stage::Up(child) = &self.state.stage {
                    self.state.hung = true;
                    self.effects.push(ChildEffect::KillGroup(child.pid));
                }
            }
            ChildEvent::Extend(by) => {
                if let Stage::Stopping { kill_at, .. } = &mut self.state.stage {
                    *kill_at = (self.now.at + by).max(*kill_at);
                }
            }
            ChildEvent::Tick => self.tick(),
            ChildEvent::GroupEmpty => {
                if let Stage::Sweeping { then, .. } = self.state.stage.clone() {
                    self.down(then);
                }
            }
        }
    }

    fn up(&mut self, pid: u32, release: String, ready: bool) {
        self.state.stage = Stage::Up(RunningChild {
            pid,
            release,
            since: self.now.at,
            ready,
        });
    }

    fn down(&mut self, reason: DownReason) {
        let replace = reason == DownReason::Replacing;
        self.state.stage = Stage::Down(reason);
        if replace {
            self.start();
        }
    }

    fn want(&mut self, release: String) {
        if self.state.want.as_ref() != Some(&release) {
            self.state.want = Some(release);
            self.state.backoff.reset();
            if let Stage::Down(reason) | Stage::Sweeping { then: reason, .. } =
                &mut self.state.stage
                && !self.state.halted
            {
                *reason = DownReason::Replacing;
            }
        }
        self.settle();
    }

    /// Brings what runs in line with what is wanted.
    fn settle(&mut self) {
        match &self.state.stage {
            Stage::Up(child) => {
                let want = self.state.want.as_ref();
                if self.state.halted || want.is_some_and(|want| *want != child.release) {
                    self.stop();
                }
            }
            Stage::Down(DownReason::NothingBuilt | DownReason::Replacing) => self.start(),
            _ => {}
        }
    }

    fn start(&mut self) {
        if self.state.halted {
            self.state.stage = Stage::Down(DownReason::Halted);
        } else if let Some(release) = self.state.want.clone() {
            self.state.stage = Stage::Starting(release.clone());
            self.effects.push(ChildEffect::Spawn(release));
        }
    }

    fn stop(&mut self) {
        if let Stage::Up(child) = &self.state.stage {
            self.effects.push(ChildEffect::Terminate(child.pid));
            self.state.stage = Stage::Stopping {
                child: child.clone(),
                kill_at: self.now.at + self.policy.stop_timeout,
            };
        }
    }

    fn exited(&mut self, how: String, code: Option<i32>) {
        let group = self.state.running().map(|child| child.pid);
        let how = if std::mem::take(&mut self.state.hung) {
            "fell silent (no WATCHDOG=1) and was killed".to_owned()
        } else {
            how
        };
        match &self.state.stage {
            Stage::Up(child) => {
                let ran = self.now.at.saturating_sub(child.since);
                self.failed(ran, how, code);
            }
            Stage::Stopping { .. } => {
                self.state.stage = Stage::Down(if self.state.halted {
                    DownReason::Halted
                } else {
                    DownReason::Replacing
                });
            }
            Stage::Down(_) | Stage::Starting(_) | Stage::Sweeping { .. } => {}
        }
        if let (Some(group), Stage::Down(then)) = (group, self.state.stage.clone()) {
            self.effects.push(ChildEffect::KillGroup(group));
            self.state.stage = Stage::Sweeping { group, then };
        }
    }

    fn failed(&mut self, ran: Duration, how: String, code: Option<i32>) {
        let release = match &self.state.stage {
            Stage::Up(child) => child.release.clone(),
            Stage::Starting(release) => release.clone(),
            _ => self.state.want.clone().unwrap_or_default(),
        };
        self.state.restarts += 1;
        self.state.last_failure = Some(how.clone());
        let wait = self.state.backoff.after(ran, self.now.draw);
        let wanted = self.state.want.as_ref() == Some(&release);
        self.state.stage = Stage::Down(if self.state.halted {
            DownReason::Halted
        } else if !wanted {
            DownReason::Replacing
        } else if code == Some(CONFIG_EXIT) {
            DownReason::Misconfigured
        } else {
            DownReason::BackOff {
                until: self.now.at + wait,
                how: how.clone(),
            }
        });
        self.effects.push(ChildEffect::Failed { release, how });
    }

    fn tick(&mut self) {
        match self.state.stage.clone() {
            Stage::Down(DownReason::BackOff { until, .. }) if until <= self.now.at => self.start(),
            Stage::Stopping { child, kill_at } if kill_at <= self.now.at => {
                self.effects.push(ChildEffect::KillGroup(child.pid));
                self.state.stage = Stage::Stopping {
                    child,
                    kill_at: self.now.at + Duration::from_secs(1),
                };
            }
            Stage::Sweeping { group, .. } => self.effects.push(ChildEffect::KillGroup(group)),
            _ => {}
        }
    }
}

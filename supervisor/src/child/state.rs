//! The life of the child as a pure function: there is never more than one.
//!
//! A start is possible from [`Stage::Down`] only, and the way there leads through
//! [`Stage::Sweeping`], which ends when the process group of the last child is empty.

use std::time::Duration;

use super::restart::Restart;

/// Where the child stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// No process.
    Down(Why),
    /// Running.
    Up(Running),
    /// Asked to end; killed with its group at `kill_at`.
    Stopping {
        /// What is ending.
        child: Running,
        /// When patience ends.
        kill_at: Duration,
    },
    /// The child has ended; the rest of its group is being killed.
    Sweeping {
        /// The process group.
        group: u32,
        /// What comes after.
        then: Why,
    },
}

/// A running child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Process id, which is the process group's too.
    pub pid: u32,
    /// The release it was started from; empty when that is not known.
    pub release: String,
    /// When it was started or adopted.
    pub since: Duration,
    /// Whether it said READY=1 (or was adopted).
    pub ready: bool,
}

/// Why there is no child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There is nothing to run yet.
    NothingBuilt,
    /// It ended by itself; the next start is at this time.
    BackOff {
        /// When.
        until: Duration,
        /// How it ended.
        how: String,
    },
    /// It said that its configuration is wrong: a restart would not help.
    Misconfigured,
    /// Another one takes its place at once.
    Replacing,
    /// We were told to stop.
    Halted,
}

/// What can happen to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This release is wanted from now on.
    Want(String),
    /// A child left behind by the last supervisor was found running.
    Adopted {
        /// Its process id.
        pid: u32,
        /// Its release, if known.
        release: String,
    },
    /// The operator wants a fresh process.
    Restart,
    /// No child is wanted any more.
    Halt,
    /// No more patience.
    Kill,
    /// The answer to [`Effect::Spawn`].
    Spawned(u32),
    /// The answer to [`Effect::Spawn`].
    SpawnFailed(String),
    /// The process ended.
    Exited {
        /// How, in words.
        how: String,
        /// Its exit code, if it was not killed.
        code: Option<i32>,
    },
    /// It said READY=1.
    Ready,
    /// It has not said WATCHDOG=1 for too long.
    Hung,
    /// Time has passed; `group_empty` is looked up when sweeping.
    Tick {
        /// Whether no process of the child's group is left.
        group_empty: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start a child of this release; answer with `Spawned` or `SpawnFailed`.
    Spawn(String),
    /// Ask the process to end.
    Terminate(u32),
    /// Kill the whole group.
    KillGroup(u32),
    /// Tell the update that a child of this release was started.
    Started(String),
    /// Tell the update that the child of this release is ready.
    Ready(String),
    /// Tell the update that the child of this release failed.
    Failed {
        /// The release.
        release: String,
        /// How.
        how: String,
    },
}

/// The child, what is wanted of it, and how patient we are.
#[derive(Debug, Clone)]
pub struct Child {
    /// Where it stands.
    pub stage: Stage,
    /// The release that is wanted.
    pub want: Option<String>,
    /// Back-off between restarts.
    pub restart: Restart,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// Restarts after failures since the supervisor began.
    pub restarts: u64,
    /// How the last child ended, if it did so by itself.
    pub last_failure: Option<String>,
    halted: bool,
    hung: bool,
}

/// The exit code of a child whose configuration is wrong.
const CONFIG_EXIT: i32 = shared::Exit::Config as i32;

/// Between looks at a group that is being swept.
const SWEEP: Duration = Duration::from_millis(20);

impl Child {
    /// Makes one that has not been started.
    pub fn new(stop_timeout: Duration) -> Self {
        Self {
            stage: Stage::Down(Why::NothingBuilt),
            want: None,
            restart: Restart::default(),
            stop_timeout,
            restarts: 0,
            last_failure: None,
            halted: false,
            hung: false,
        }
    }

    /// Carries out one event. `draw` in 0..=1000 is the jitter of a back-off.
    pub fn step(&mut self, event: Event, now: Duration, draw: u32) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Want(release) => self.wanted(release, now, &mut effects),
            Event::Adopted { pid, release } => {
                let child = Running {
                    pid,
                    release: release.clone(),
                    since: now,
                    ready: true,
                };
                self.stage = Stage::Up(child);
                effects.push(Effect::Ready(release));
                self.settle(now, &mut effects);
            }
            Event::Restart => {
                self.restart.reset();
                match self.stage {
                    Stage::Up(_) => self.stop(now, &mut effects),
                    Stage::Down(_) => self.start(&mut effects),
                    Stage::Stopping { .. } | Stage::Sweeping { .. } => {}
                }
            }
            Event::Halt => {
                self.halted = true;
                match &mut self.stage {
                    Stage::Up(_) => self.stop(now, &mut effects),
                    Stage::Down(why) | Stage::Sweeping { then: why, .. } => *why = Why::Halted,
                    Stage::Stopping { .. } => {}
                }
            }
            Event::Kill => {
                if let Stage::Up(child) | Stage::Stopping { child, .. } = &self.stage {
                    effects.push(Effect::KillGroup(child.pid));
                }
            }
            Event::Spawned(pid) => {
                let release = self.want.clone().unwrap_or_default();
                self.stage = Stage::Up(Running {
                    pid,
                    release: release.clone(),
                    since: now,
                    ready: false,
                });
                effects.push(Effect::Started(release));
            }
            Event::SpawnFailed(how) => {
                self.failed(Duration::ZERO, how, None, (now, draw), &mut effects);
            }
            Event::Exited { how, code } => self.exited(how, code, (now, draw), &mut effects),
            Event::Ready => {
                if let Stage::Up(child) = &mut self.stage
                    && !child.ready
                {
                    child.ready = true;
                    effects.push(Effect::Ready(child.release.clone()));
                }
            }
            Event::Hung => {
                if let Stage::Up(child) = &self.stage {
                    self.hung = true;
                    effects.push(Effect::KillGroup(child.pid));
                }
            }
            Event::Tick { group_empty } => self.tick(group_empty, now, &mut effects),
        }
        effects
    }

    /// Returns when [`Event::Tick`] is wanted.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        match &self.stage {
            Stage::Down(Why::BackOff { until, .. }) => Some(*until),
            Stage::Stopping { kill_at, .. } => Some(*kill_at),
            Stage::Sweeping { .. } => Some(now + SWEEP),
            Stage::Down(_) | Stage::Up(_) => None,
        }
    }

    /// Returns the running child, also one that is being stopped.
    pub const fn running(&self) -> Option<&Running> {
        match &self.stage {
            Stage::Up(child) | Stage::Stopping { child, .. } => Some(child),
            Stage::Down(_) | Stage::Sweeping { .. } => None,
        }
    }

    /// Returns the release that is up and meant to stay so.
    pub fn up(&self) -> Option<&str> {
        match &self.stage {
            Stage::Up(child) => Some(&child.release),
            _ => None,
        }
    }

    /// Returns how the child is failing, if it is.
    pub fn failing(&self) -> Option<&str> {
        let failing = match &self.stage {
            Stage::Down(Why::BackOff { .. } | Why::Misconfigured) => true,
            _ => self.restart.failures() > 1,
        };
        self.last_failure.as_deref().filter(|_| failing)
    }

    /// Returns whether no child is wanted any more.
    pub const fn is_halting(&self) -> bool {
        self.halted
    }

    /// Returns whether all is over.
    pub fn is_halted(&self) -> bool {
        self.stage == Stage::Down(Why::Halted)
    }

    fn wanted(&mut self, release: String, now: Duration, effects: &mut Vec<Effect>) {
        if self.want.as_ref() != Some(&release) {
            self.want = Some(release);
            self.restart.reset();
            if let Stage::Down(why) | Stage::Sweeping { then: why, .. } = &mut self.stage
                && !self.halted
            {
                *why = Why::Replacing;
            }
        }
        self.settle(now, effects);
    }

    /// Brings what runs in line with what is wanted.
    fn settle(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        match &self.stage {
            Stage::Up(child)
                if self
                    .want
                    .as_ref()
                    .is_some_and(|want| *want != child.release) =>
            {
                self.stop(now, effects);
            }
            Stage::Down(Why::NothingBuilt | Why::Replacing) => self.start(effects),
            _ => {}
        }
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        if self.halted {
            self.stage = Stage::Down(Why::Halted);
        } else if let Some(release) = &self.want {
            effects.push(Effect::Spawn(release.clone()));
        }
    }

    fn stop(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Stage::Up(child) = &self.stage {
            effects.push(Effect::Terminate(child.pid));
            let kill_at = now + self.stop_timeout;
            self.stage = Stage::Stopping {
                child: child.clone(),
                kill_at,
            };
        }
    }

    fn exited(
        &mut self,
        how: String,
        code: Option<i32>,
        (now, draw): (Duration, u32),
        effects: &mut Vec<Effect>,
    ) {
        let group = self.running().map(|child| child.pid);
        let hung = std::mem::take(&mut self.hung);
        let how = if hung {
            "fell silent (no WATCHDOG=1) and was killed".to_owned()
        } else {
            how
        };
        match self.stage.clone() {
            Stage::Up(child) => {
                let ran = now.saturating_sub(child.since);
                self.failed(ran, how, code, (now, draw), effects);
            }
            Stage::Stopping { .. } => {
                self.stage = Stage::Down(if self.halted {
                    Why::Halted
                } else {
                    Why::Replacing
                });
            }
            Stage::Down(_) | Stage::Sweeping { .. } => {}
        }
        if let (Some(group), Stage::Down(then)) = (group, self.stage.clone()) {
            effects.push(Effect::KillGroup(group));
            self.stage = Stage::Sweeping { group, then };
        }
    }

    fn failed(
        &mut self,
        ran: Duration,
        how: String,
        code: Option<i32>,
        (now, draw): (Duration, u32),
        effects: &mut Vec<Effect>,
    ) {
        let release = match &self.stage {
            Stage::Up(child) => child.release.clone(),
            _ => self.want.clone().unwrap_or_default(),
        };
        self.restarts += 1;
        self.last_failure = Some(how.clone());
        let wait = self.restart.after(ran, draw);
        self.stage = Stage::Down(if self.halted {
            Why::Halted
        } else if code == Some(CONFIG_EXIT) {
            Why::Misconfigured
        } else {
            Why::BackOff {
                until: now + wait,
                how: how.clone(),
            }
        });
        effects.push(Effect::Failed { release, how });
    }

    fn tick(&mut self, group_empty: bool, now: Duration, effects: &mut Vec<Effect>) {
        match self.stage.clone() {
            Stage::Down(Why::BackOff { until, .. }) if until <= now => self.start(effects),
            Stage::Stopping { child, kill_at } if kill_at <= now => {
                effects.push(Effect::KillGroup(child.pid));
                self.stage = Stage::Stopping {
                    child,
                    kill_at: now + Duration::from_secs(1),
                };
            }
            Stage::Sweeping { then, .. } if group_empty => {
                let replace = then == Why::Replacing;
                self.stage = Stage::Down(then);
                if replace {
                    self.start(effects);
                }
            }
            Stage::Sweeping { group, .. } => effects.push(Effect::KillGroup(group)),
            _ => {}
        }
    }
}

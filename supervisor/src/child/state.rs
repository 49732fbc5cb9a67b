//! What the child's life is made of: its state, what can happen to it, what it can ask for.

use std::time::Duration;

use super::backoff::{HEALTHY, RestartPauses};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Down(DownReason),
    /// A child of this release is being started; the answer is on its way.
    Starting(String),
    Up(RunningChild),
    /// Asked to end; killed with its group at `kill_at`.
    Stopping {
        child: RunningChild,
        kill_at: Duration,
    },
    /// The child has ended; the rest of its group is being killed.
    Sweeping {
        group: u32,
        then: DownReason,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningChild {
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
pub enum DownReason {
    /// There is nothing to run yet.
    NothingBuilt,
    /// It ended by itself; the next start is at this time.
    BackOff { until: Duration, how: String },
    /// It said that its configuration is wrong: a restart would not help.
    Misconfigured,
    /// Another one takes its place at once.
    Replacing,
    /// We were told to stop.
    Halted,
}

/// What can happen to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    /// This release is wanted from now on.
    Want(String),
    /// A child left behind by the last supervisor was found running.
    Adopted {
        pid: u32,
        release: String,
    },
    /// The operator wants a fresh process.
    Restart,
    /// No child is wanted any more.
    Halt,
    Kill,
    Spawned(u32),
    SpawnFailed {
        how: String,
        /// Whether the release is not there at all.
        lost: bool,
    },
    Exited {
        how: String,
        /// Its exit code, if it was not killed.
        code: Option<i32>,
    },
    Ready,
    /// It has not said WATCHDOG=1 for too long.
    Hung,
    /// It asks for more time to end.
    Extend(Duration),
    /// The time of [`ChildState::due`] has come.
    Tick,
    /// No process of the last child's group is left.
    GroupEmpty,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEffect {
    /// Start a child of this release; answer with `Spawned` or `SpawnFailed`.
    Spawn(String),
    /// Ask the process to end.
    Terminate(u32),
    KillGroup(u32),
    /// Tell the update that a child of this release was started.
    Started(String),
    /// Tell the update that the wanted release has to be built again.
    Lost,
    /// Tell the update that the child of this release is ready.
    Ready(String),
    /// Tell the update that the child of this release failed.
    Failed {
        release: String,
        how: String,
    },
}

/// The child and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildState {
    pub stage: Stage,
    /// The release that is wanted.
    pub want: Option<String>,
    pub backoff: RestartPauses,
    /// Restarts after failures since the supervisor began.
    pub restarts: u64,
    /// How the last child ended, if it did so by itself.
    pub last_failure: Option<String>,
    /// Whether no child is wanted any more.
    pub halted: bool,
    /// Whether the child is being killed for its silence.
    pub hung: bool,
}

/// The rules the child is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildPolicy {
    pub stop_timeout: Duration,
}

/// What the world looks like at the moment of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChildNow {
    /// Monotonic time since this process began.
    pub at: Duration,
    /// The jitter of a back-off, 0..=1000.
    pub draw: u32,
}

/// Between looks at a group that is being swept.
const SWEEP: Duration = Duration::from_millis(20);

impl Default for ChildState {
    fn default() -> Self {
        Self {
            stage: Stage::Down(DownReason::NothingBuilt),
            want: None,
            backoff: RestartPauses::default(),
            restarts: 0,
            last_failure: None,
            halted: false,
            hung: false,
        }
    }
}

impl ChildState {
    /// Returns when [`ChildEvent::Tick`] is wanted.
    pub fn due(&self, at: Duration) -> Option<Duration> {
        match &self.stage {
            Stage::Down(DownReason::BackOff { until, .. }) => Some(*until),
            Stage::Stopping { kill_at, .. } => Some(*kill_at),
            Stage::Sweeping { .. } => Some(at + SWEEP),
            Stage::Down(_) | Stage::Starting(_) | Stage::Up(_) => None,
        }
    }

    /// Returns the running child, also one that is being stopped.
    pub const fn running(&self) -> Option<&RunningChild> {
        match &self.stage {
            Stage::Up(child) | Stage::Stopping { child, .. } => Some(child),
            Stage::Down(_) | Stage::Starting(_) | Stage::Sweeping { .. } => None,
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
            Stage::Down(DownReason::BackOff { .. } | DownReason::Misconfigured) => true,
            _ => self.backoff.failures() > 1,
        };
        self.last_failure.as_deref().filter(|_| failing)
    }

    /// Returns how often it failed in a row; none once it has run for so long that its next failure is the first again.
    pub fn failures_in_a_row(&self, at: Duration) -> u32 {
        match self.running() {
            Some(child) if at.saturating_sub(child.since) >= HEALTHY => 0,
            _ => self.backoff.failures(),
        }
    }

    /// Returns whether all is over.
    pub fn is_halted(&self) -> bool {
        self.stage == Stage::Down(DownReason::Halted)
    }
}

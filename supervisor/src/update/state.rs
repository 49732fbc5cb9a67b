//! What an update is made of: its state, what can happen to it, what it can ask for.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::status::Health;

pub use super::version::{LocalChange, Version};
use super::{probation::Baseline, quarantine::Quarantine};
use crate::{error::Fault, text};

/// The format of the journal; a supervisor refuses to touch a newer one.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing to do until the next poll.
    Idle,
    Polling,
    /// Checking out, building and installing beside the running version.
    Building {
        candidate: Version,
    },
    /// Running the smoke test of the installed candidate.
    Testing {
        candidate: Version,
    },
    /// Proven; waits for the hold-off, the window and a safe point.
    Waiting {
        candidate: Version,
    },
    Switching {
        candidate: Version,
        /// How the old version was.
        baseline: Baseline,
    },
    /// The candidate runs and must prove itself.
    Probation {
        candidate: Version,
        /// How the old version was.
        baseline: Baseline,
    },
    /// Tidying up after a success.
    Accepting,
    /// Making the accepted version current again.
    RollingBack,
}

impl Phase {
    /// Returns what a crash leaves of it: a poll that was not done is done again.
    const fn lasting(&self) -> &Self {
        match self {
            Self::Polling => &Self::Idle,
            phase => phase,
        }
    }

    /// Returns its name as people see it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Polling => "polling",
            Self::Building { .. } => "building",
            Self::Testing { .. } => "testing",
            Self::Waiting { .. } => "waiting",
            Self::Switching { .. } => "switching",
            Self::Probation { .. } => "probation",
            Self::Accepting => "accepting",
            Self::RollingBack => "rolling-back",
        }
    }
}

/// All that an update remembers; this is the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateState {
    /// See [`FORMAT`].
    pub format: u32,
    pub phase: Phase,
    /// What runs when no update is under way.
    pub accepted: Option<Version>,
    /// What ran before that: the way back.
    pub previous: Option<Version>,
    /// The newest upstream commit ever accepted; the branch must descend from it.
    pub trusted: Option<String>,
    /// The newest release ever accepted: none older is taken from the release channel.
    #[serde(default)]
    pub trusted_release: Option<String>,
    /// Tips that the branch was ever seen at, oldest first. What they reach came from upstream,
    /// whatever upstream says now.
    #[serde(default)]
    pub upstream: Vec<String>,
    /// Local commits that the operator asked for although signatures are required.
    #[serde(default)]
    pub requested: Vec<String>,
    /// Commits that failed and are not tried again.
    #[serde(flatten)]
    pub quarantine: Quarantine,
    /// Why the accepted version is kept, whatever upstream has, until the operator asks for an
    /// update.
    #[serde(default)]
    pub hold: Option<String>,
    /// What keeps us from being up to date.
    pub problem: Option<String>,
    /// Failures in a row that were not the code's fault.
    pub failures: u32,
    /// A version that failed through no fault of its own.
    #[serde(skip)]
    pub retry: Option<Retry>,
    #[serde(skip)]
    pub due: Option<Duration>,
    /// What the operator asked for.
    #[serde(skip)]
    pub urgency: Urgency,
    /// Whether the operator asked for the local changes.
    #[serde(skip)]
    pub ask_local: bool,
    /// Whether the poll under way looks at them.
    #[serde(skip)]
    pub polled_local: bool,
    /// Whether the operator asked during a poll, which may have looked too early.
    #[serde(skip)]
    pub again: bool,
    /// When the candidate was first seen.
    #[serde(skip)]
    pub seen: Duration,
    /// Its release.
    #[serde(skip)]
    pub seen_release: String,
    /// Since when there is anything newer than what runs.
    #[serde(skip)]
    pub behind_since: Option<Duration>,
    /// When upstream last said what it has.
    #[serde(skip)]
    pub looked: Duration,
    /// What a proven candidate waits for.
    #[serde(skip)]
    pub awaits: Option<String>,
    /// When we stop waiting for a safe point.
    #[serde(skip)]
    pub give_up: Option<Duration>,
    /// When the child on probation became ready.
    #[serde(skip)]
    pub ready: Option<Duration>,
}

impl Default for UpdateState {
    fn default() -> Self {
        Self {
            format: FORMAT,
            phase: Phase::Idle,
            accepted: None,
            previous: None,
            trusted: None,
            trusted_release: None,
            upstream: Vec::new(),
            requested: Vec::new(),
            quarantine: Quarantine::default(),
            hold: None,
            retry: None,
            problem: None,
            failures: 0,
            due: None,
            urgency: Urgency::Routine,
            ask_local: false,
            polled_local: false,
            again: false,
            seen: Duration::ZERO,
            seen_release: String::new(),
            behind_since: None,
            looked: Duration::ZERO,
            awaits: None,
            give_up: None,
            ready: None,
        }
    }
}

/// When a version that failed through no fault of its own is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// See [`Version::identity`].
    pub identity: String,
    pub failures: u32,
    pub at: Duration,
}

/// How urgent an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Urgency {
    #[default]
    Routine,
    /// Asked for: no hold-off, no window.
    Asked,
    /// Insisted on: no safe point either, and the quarantine is lifted.
    Forced,
}

/// The rules an update goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePolicy {
    pub interval: Duration,
    /// Added to each interval, drawn once per process.
    pub jitter: Duration,
    /// Between seeing a commit and switching to it.
    pub hold_off: Duration,
    /// From start to READY=1.
    pub ready_timeout: Duration,
    pub probation: Duration,
    /// Longest wait for a safe point.
    pub max_wait: Duration,
    /// Whether to look for updates at all.
    pub updates: bool,
}

/// What the world looks like at the moment of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateNow {
    /// Monotonic time since this process began.
    pub at: Duration,
    /// How long until the maintenance window opens; zero inside it.
    pub window_in: Duration,
    /// Why a restart of the child would hurt now.
    pub unsafe_because: Option<String>,
    /// What the child says of itself.
    pub health: Option<Health>,
    /// The release whose child is up.
    pub up: Option<String>,
    /// How the child last failed, if it is failing.
    pub failing: Option<String>,
    /// Whether the child has said anything over sd_notify.
    pub speaks: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Polled {
    UpToDate,
    /// A commit that changes nothing the build reads.
    NoRebuild(Version),
    New(Version),
}

/// What can happen to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateEvent {
    Started,
    /// The time in [`UpdateState::due`] has come.
    Tick,
    /// An update is asked for.
    Ask {
        urgency: Urgency,
        /// Whether the operator asks for the local changes, although signatures are required.
        local: bool,
    },
    /// The operator asks for the previous version.
    GoBack,
    Polled {
        /// Tips of the branch, see [`UpdateState::upstream`]; `None` if the poll got nowhere.
        upstream: Option<Vec<String>>,
        found: Result<Polled, Fault>,
    },
    Built(Result<(), Fault>),
    Tested(Result<(), Fault>),
    Switched(Result<(), Fault>),
    Tidied,
    /// The child asks for more time to become ready.
    Extend(Duration),
    /// A child of this release was started.
    ChildStarted(String),
    /// The child is up and says it is ready.
    ChildReady(String),
    /// The child of this release ended by itself or could not be started.
    ChildFailed {
        release: String,
        how: String,
    },
}

impl UpdateEvent {
    /// Asks for an update as signed.
    pub const fn ask(urgency: Urgency) -> Self {
        Self::Ask {
            urgency,
            local: false,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateEffect {
    /// Carry out a step in a worker; its answer is an event.
    Start(Step),
    /// Keep a child of this release running, and only that.
    Run(String),
    /// Write to the history and tell whoever wants to know.
    Record(Note),
}

/// A step of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Poll {
        /// Whether the operator insists: new local changes alone are a reason to build.
        forced: bool,
        /// Whether the operator asks for local changes that nobody signed.
        local: bool,
    },
    Build(Version),
    Test(Version),
    /// Point `current` at a release, `previous` at the accepted one.
    Switch(Version),
    /// Prune old releases, fast-forward the checkout, become the new supervisor.
    Accept(Version),
}

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub result: Outcome,
    /// The upstream commit it is about.
    pub commit: String,
    /// First line of its message.
    #[serde(default, deserialize_with = "text::printable")]
    pub summary: String,
    #[serde(default)]
    pub signer: Option<String>,
    /// Seconds since it was first seen.
    pub seconds: u64,
    #[serde(default, deserialize_with = "text::printable")]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Accepted,
    /// It changes nothing that is built.
    AcceptedWithoutRestart,
    /// It was not tried: wrong signature, rewritten branch, conflict.
    Refused,
    /// It did not build or failed the smoke test.
    Failed,
    /// It ran and was taken back.
    RolledBack,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::AcceptedWithoutRestart => "accepted without restart",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::RolledBack => "rolled back",
        })
    }
}

impl UpdateState {
    /// Returns whether the journal would hold the same, or what is recovered alike; the rest starts over with the
    /// process. A quiet poll writes nothing.
    pub fn persists_as(&self, other: &Self) -> bool {
        self.phase.lasting() == other.phase.lasting()
            && self.accepted == other.accepted
            && self.previous == other.previous
            && self.trusted == other.trusted
            && self.trusted_release == other.trusted_release
            && self.upstream == other.upstream
            && self.requested == other.requested
            && self.quarantine == other.quarantine
            && self.hold == other.hold
            && self.problem == other.problem
            && self.failures == other.failures
    }

    /// Remembers a version as the newest that was accepted from its channel.
    pub fn trust(&mut self, version: &Version) {
        if version.is_release() {
            self.trusted_release = Some(version.commit.clone());
        } else {
            self.trusted = Some(version.commit.clone());
        }
    }

    /// Returns the release that should be running, if there is one.
    pub fn wanted(&self) -> Option<&str> {
        match &self.phase {
            Phase::Probation { candidate, .. } => Some(&candidate.release),
            _ => self
                .accepted
                .as_ref()
                .map(|version| version.release.as_str()),
        }
    }

    /// Returns what is being tried.
    pub fn candidate(&self) -> Option<&Version> {
        match &self.phase {
            Phase::Building { candidate }
            | Phase::Testing { candidate }
            | Phase::Waiting { candidate }
            | Phase::Switching { candidate, .. }
            | Phase::Probation { candidate, .. } => Some(candidate),
            Phase::Idle | Phase::Polling | Phase::Accepting | Phase::RollingBack => None,
        }
    }
}

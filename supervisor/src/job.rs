//! The steps of an update that run in a short-lived process of their own.
//!
//! Git, TLS and the build's output stay out of the supervisor's memory, a step that hangs can be
//! killed, and a step never outlives its supervisor. This is what the two sides say to each other:
//! a [`Job`] on the worker's standard input, [`Line`]s on its standard output.

use std::{ffi::OsString, io::Write};

use serde::{Deserialize, Serialize};
use shared::notices::Notice;

use crate::{
    config::Config,
    error::Fault,
    trouble::Trouble,
    update::state::{Note, Polled, Version},
};

/// The hidden subcommand that carries out a [`Job`].
pub(crate) const SUBCOMMAND: &str = "worker";

/// A line of a worker is never longer than this, in bytes.
pub(crate) const MAX_LINE: u64 = 1 << 20;

/// One step, with the configuration it goes by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) config: Config,
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    /// Ask the remote what is new.
    Poll(Poll),
    Build(Version),
    Test {
        version: Version,
        /// The supervisor's own arguments, which a new supervisor must understand.
        own_args: Vec<OsString>,
    },
    /// Point the links at a release.
    Switch {
        to: Version,
        /// What becomes the way back.
        previous: Option<String>,
        /// Whether the operator's hook may refuse.
        ask_hook: bool,
    },
    /// Tidy up after a success.
    Accept(Version),
    /// Tell whoever wants to know what became of a version.
    Notify(Note),
    /// Tell them what is wrong, or no longer is.
    Call(Notice<Trouble>),
}

/// What a poll compares the remote with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Poll {
    pub(crate) accepted: Option<Version>,
    /// The newest commit ever accepted.
    pub(crate) trusted: Option<String>,
    /// See [`UpdateState::upstream`](crate::update::state::UpdateState::upstream).
    pub(crate) upstream: Vec<String>,
    /// Local commits that may be built although signatures are required.
    pub(crate) requested: Vec<String>,
    /// Whether new local changes alone are a reason to build.
    pub(crate) forced: bool,
    /// Whether all local changes may be built although signatures are required.
    pub(crate) local: bool,
    pub(crate) reach: Reach,
}

/// How far a poll goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reach {
    #[default]
    Remote,
    /// The first version is taken from the checkout without asking the remote.
    Checkout,
    /// The remote is asked, and no trace is left.
    Dry,
}

/// What a step came to.
#[expect(
    clippy::large_enum_variant,
    reason = "one is made at the end of each worker"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Of [`Task::Poll`].
    Polled {
        /// Tips of the branch, with those seen now.
        upstream: Vec<String>,
        /// What was made of it: a commit that is refused was seen all the same.
        found: Result<Polled, Fault>,
    },
    Done,
}

/// What a worker says, one line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line {
    Progress(String),
    /// How it ended; the last line.
    Ended(Result<Answer, Fault>),
}

/// Says what is being done.
pub(crate) fn progress(text: impl Into<String>) {
    say(&Line::Progress(text.into()));
}

pub(crate) fn say(line: &Line) {
    match serde_json::to_string(line) {
        // A supervisor that has replaced itself meanwhile no longer listens.
        Ok(text) => drop(writeln!(std::io::stdout(), "{text}")),
        Err(error) => tracing::error!(%error, "could not write a line"),
    }
}

//! The steps of an update that run in a short-lived process of their own.
//!
//! Git, TLS and the build's output stay out of the supervisor's memory, a step that hangs can be
//! killed, and a step never outlives its supervisor.

use std::{
    ffi::OsString, io::Write, os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration,
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use shared::task::TaskSet;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    sync::mpsc,
};

use crate::{
    error::{Blame, Fault},
    home::Home,
    update::{
        channel::Downloads,
        state::{Note, Polled, Version},
    },
};

/// The running image of this very program, even when its file has been replaced.
pub const OWN_IMAGE: &str = "/proc/self/exe";

/// The hidden subcommand that carries out a [`Job`].
pub const SUBCOMMAND: &str = "worker";

/// A line of a worker is never longer than this.
const MAX_LINE: u64 = 1 << 20;

/// A step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Ask the remote what is new.
    Poll(Poll),
    /// Check out, build, install.
    Build(Build),
    /// Run the smoke test.
    Test(Test),
    /// Point the links at a release.
    Switch(Switch),
    /// Tidy up after a success.
    Accept(Accept),
    /// Tell whoever wants to know.
    Tell(Tell),
}

/// What [`Job::Poll`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four options that have nothing in common"
)]
pub struct Poll {
    /// Our folder.
    pub home: Home,
    /// The operator's checkout.
    pub repo: PathBuf,
    /// Name or address of the remote; the upstream's when absent.
    pub remote: Option<String>,
    /// The branch; the upstream's when absent.
    pub branch: Option<String>,
    /// A revision to stay at.
    pub pin: Option<String>,
    /// What runs now.
    pub accepted: Option<Version>,
    /// The newest commit ever accepted.
    pub trusted: Option<String>,
    /// Whether a rewritten branch is followed.
    pub follow_rewrites: bool,
    /// Whether new local changes alone are a reason to build.
    pub forced: bool,
    /// SSH keys to log in with, where the agent has none that fits.
    pub ssh_keys: Vec<PathBuf>,
    /// Who may sign, if signatures are required.
    pub signers: Option<PathBuf>,
    /// Whether every new commit must be signed, not only the newest.
    pub every_commit: bool,
    /// The release channel, in place of git.
    pub downloads: Option<Downloads>,
    /// Whether to leave no trace.
    pub dry: bool,
    /// Whether to take the first version from the checkout without asking the remote.
    pub offline: bool,
}

/// What [`Job::Build`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    /// Our folder.
    pub home: Home,
    /// The operator's checkout, whose objects we may need.
    pub repo: PathBuf,
    /// SSH keys to log in with where submodules are, where the agent has none that fits.
    pub ssh_keys: Vec<PathBuf>,
    /// What to build.
    pub version: Version,
    /// The programs a build must yield.
    pub bins: Vec<String>,
    /// Cargo profile.
    pub profile: String,
    /// Cargo features.
    pub features: Vec<String>,
    /// Where cargo builds.
    pub target_dir: PathBuf,
    /// Where the build's output goes.
    pub log: PathBuf,
    /// Free disk space required, in bytes.
    pub min_disk: u64,
    /// Free memory required, in bytes.
    pub min_memory: u64,
    /// The release channel, in place of git.
    pub downloads: Option<Downloads>,
}

/// What [`Job::Test`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Test {
    /// Our folder.
    pub home: Home,
    /// What to test.
    pub version: Version,
    /// The programs; each must answer `--version`.
    pub bins: Vec<String>,
    /// Arguments of the first program that check its configuration; empty for no such check.
    pub check: Vec<String>,
    /// The child's own arguments.
    pub args: Vec<OsString>,
    /// The child's working folder.
    pub cwd: PathBuf,
    /// The supervisor's own arguments, which a new supervisor must understand.
    pub own_args: Vec<OsString>,
}

/// What [`Job::Switch`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Switch {
    /// Our folder.
    pub home: Home,
    /// What becomes current.
    pub to: Version,
    /// What becomes previous.
    pub previous: Option<String>,
    /// A command that may refuse.
    pub hook: Option<String>,
}

/// What [`Job::Accept`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accept {
    /// Our folder.
    pub home: Home,
    /// The operator's checkout, unless releases are downloaded.
    pub repo: Option<PathBuf>,
    /// What was accepted.
    pub version: Version,
    /// Releases to keep.
    pub keep: usize,
    /// A command to run.
    pub hook: Option<String>,
}

/// What [`Job::Tell`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tell {
    /// The child's name.
    pub child_name: String,
    /// What happened.
    pub note: Note,
    /// A command to run, with the note on its standard input.
    pub hook: Option<String>,
    /// Addresses to post to, or commands.
    pub to: Vec<String>,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Of [`Job::Poll`].
    Polled(Polled),
    /// Of all others.
    Done,
}

/// A line a worker writes to its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// What it is doing.
    Progress(String),
    /// How it ended; the last line.
    Ended(Result<Answer, Fault>),
}

/// A worker at work.
#[derive(Debug)]
pub struct Running {
    /// Its process group.
    pub group: u32,
}

impl Running {
    /// Ends the worker and everything it started.
    pub fn kill(&self) {
        crate::child::control::kill_group(self.group);
    }
}

/// Starts a step. Its lines come through `lines`, each with `tag`; the last one is always
/// [`Line::Ended`], also when the worker is killed or exceeds `limit`.
pub fn start(
    job: &Job,
    limit: Duration,
    tag: u64,
    lines: mpsc::Sender<(u64, Line)>,
    tasks: &mut TaskSet,
) -> std::io::Result<Running> {
    let mut command = shared::process::blocking_command(OWN_IMAGE);
    command.arg(SUBCOMMAND).arg(std::process::id().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let group = child.id();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(job).map_err(std::io::Error::other)?)?;
    }
    let Some(stdout) = child.stdout.take() else {
        return Err(std::io::Error::other("no pipe to the worker"));
    };
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    tasks.spawn("step", async move {
        listen(reader, limit, group, tag, lines).await;
        Ok(())
    });
    Ok(Running { group })
}

async fn listen(
    reader: pipe::Receiver,
    limit: Duration,
    group: u32,
    tag: u64,
    lines: mpsc::Sender<(u64, Line)>,
) {
    let relay = async {
        let mut reader = BufReader::new(reader);
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = (&mut reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut text)
                .await;
            match (read, serde_json::from_slice::<Line>(&text)) {
                (Ok(1..), Ok(Line::Ended(result))) => return result,
                (Ok(1..), Ok(line)) => {
                    let _ = lines.send((tag, line)).await;
                }
                (Ok(1..), Err(_)) => {}
                (Ok(0) | Err(_), _) => {
                    return Err(Fault::new(Blame::Machine, "the worker was killed"));
                }
            }
        }
    };
    let result = tokio::time::timeout(limit, relay)
        .await
        .unwrap_or_else(|_| {
            let text = format!("took longer than {} s", limit.as_secs());
            Err(Fault::new(Blame::Machine, text))
        });
    // Whatever the step left behind goes with it.
    let _ = shared::process::signal_group(group, Signal::SIGKILL);
    let _ = lines.send((tag, Line::Ended(result))).await;
}

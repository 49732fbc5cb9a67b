//! The supervisor's side of a [`Job`]: starts the worker, listens to it, ends it.

use std::{collections::BTreeMap, io::Write, os::fd::OwnedFd, process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use shared::task::TaskSet;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    sync::mpsc,
};

use crate::{
    child::spec::{MARKER, PROCESS, RELEASE},
    error::{Blame, Fault},
    job::{Job, Line, MAX_LINE, SUBCOMMAND},
    self_update::OWN_IMAGE,
};

/// What a worker was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Poll,
    Build,
    Test,
    Switch,
    Accept,
    Notify,
    /// The operator asks what an update would do.
    Check,
}

#[derive(Debug)]
pub(super) struct Workers {
    running: BTreeMap<u64, Worker>,
    last_tag: u64,
    sender: mpsc::Sender<(u64, Line)>,
    lines: mpsc::Receiver<(u64, Line)>,
}

#[derive(Debug)]
struct Worker {
    purpose: Purpose,
    group: u32,
}

impl Workers {
    pub(super) fn new() -> Self {
        let (sender, lines) = mpsc::channel(64);
        Self {
            running: BTreeMap::new(),
            last_tag: 0,
            sender,
            lines,
        }
    }

    /// Starts a worker. Its last line is always [`Line::Ended`], also when it is killed or exceeds
    /// `limit`.
    pub(super) fn start(
        &mut self,
        purpose: Purpose,
        job: &Job,
        limit: Duration,
        tasks: &mut TaskSet,
    ) -> std::io::Result<()> {
        let mut command = shared::process::blocking_command(OWN_IMAGE);
        command.arg(SUBCOMMAND).arg(std::process::id().to_string());
        // A supervisor that was started by its own child bears the child's mark.
        for mark in [MARKER, RELEASE, PROCESS] {
            command.env_remove(mark);
        }
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
        self.last_tag += 1;
        let (tag, lines) = (self.last_tag, self.sender.clone());
        self.running.insert(tag, Worker { purpose, group });
        tasks.spawn("worker", async move {
            let result = listen(reader, limit, tag, &lines).await;
            // Whatever the step left behind goes with it.
            let _ = shared::process::signal_group(group, Signal::SIGKILL);
            let _ = lines.send((tag, Line::Ended(result))).await;
            Ok(())
        });
        Ok(())
    }

    /// Waits for the next line of any worker.
    pub(super) async fn line(&mut self) -> Option<(u64, Line)> {
        self.lines.recv().await
    }

    /// Forgets a worker that has ended and returns what it was for.
    pub(super) fn ended(&mut self, tag: u64) -> Option<Purpose> {
        self.running.remove(&tag).map(|worker| worker.purpose)
    }

    /// Ends all workers and everything they started.
    pub(super) fn kill_all(&self) {
        for worker in self.running.values() {
            let _ = shared::process::signal_group(worker.group, Signal::SIGKILL);
        }
    }
}

async fn listen(
    reader: pipe::Receiver,
    limit: Duration,
    tag: u64,
    lines: &mpsc::Sender<(u64, Line)>,
) -> Result<crate::job::Answer, Fault> {
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
    tokio::time::timeout(limit, relay)
        .await
        .unwrap_or_else(|_| {
            let text = format!("took longer than {} s", limit.as_secs());
            Err(Fault::new(Blame::Machine, text))
        })
}

//! A bound on programs that a test waits for without one, such as while it reads from their pipes.

use std::{
    process::{Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use shared::process::signal_group;

/// No program under test takes longer.
pub const LIMIT: Duration = Duration::from_secs(200);

/// Kills a process group that takes longer than [`LIMIT`], unless dropped before.
#[derive(Debug)]
pub struct Limit {
    _until_dropped: Sender<()>,
}

impl Limit {
    /// Sets the limit for a group, such as a child of `shared::process::blocking_command`.
    ///
    /// Drop it at once after waiting for the child: then its id may become another's.
    pub fn on(group: u32) -> Self {
        let (sender, receiver): (_, Receiver<()>) = channel();
        thread::spawn(move || {
            if receiver.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                // What waits for it sees the end of its pipes; nothing more can be done.
                let _ = signal_group(group, Signal::SIGKILL);
            }
        });
        Self {
            _until_dropped: sender,
        }
    }
}

/// Runs a program to its end; one that takes too long is killed.
///
/// # Panics
///
/// Panics if it can't be started.
pub fn output(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let _limit = Limit::on(child.id());
    child
        .wait_with_output()
        .expect("the end of a child can be waited for")
}

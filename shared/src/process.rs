//! The one door to starting programs: own process group, no inherited standard input.

use std::{ffi::OsStr, os::unix::process::CommandExt, process::Stdio, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        resource,
        signal::{self, Signal},
    },
    unistd::Pid,
};

/// Returns a command that starts `program` in a process group of its own, without standard
/// input; it is killed when its handle is dropped.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn command(program: impl AsRef<OsStr>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command
        .process_group(0)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The blocking twin of [`command`]; it is not killed on drop.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn blocking_command(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Returns a command that is to take this process's place by `exec`, and stays in its group.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn replacement(program: impl AsRef<OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// Keeps this process, and those it starts, from leaving their memory in a file when they crash.
pub fn no_core_dumps() -> Result<(), Errno> {
    resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0)
}

/// Sends a signal to every process of a group. A group that is gone is not an error.
pub fn signal_group(group: u32, signal: Signal) -> Result<(), Errno> {
    match signal::killpg(pid(group), signal) {
        Err(Errno::ESRCH) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Returns whether any process of the group is left, zombies included.
pub fn group_alive(group: u32) -> bool {
    signal::killpg(pid(group), None) != Err(Errno::ESRCH)
}

/// Stops a child: SIGTERM to its group, SIGKILL to the group after `grace`. Returns how the child
/// ended. Grandchildren that outlive it are killed too.
pub async fn stop(
    child: &mut tokio::process::Child,
    grace: Duration,
) -> std::io::Result<std::process::ExitStatus> {
    let Some(group) = child.id() else {
        return child.wait().await;
    };
    signal_group(group, Signal::SIGTERM)?;
    let status = tokio::time::timeout(grace, child.wait()).await;
    signal_group(group, Signal::SIGKILL)?;
    match status {
        Ok(status) => status,
        Err(_) => child.wait().await,
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_crashes_leaves_no_core() {
        no_core_dumps().unwrap();
        let mut shell = blocking_command("sh");
        let told = shell.args(["-c", "ulimit -Hc"]).output().unwrap();
        assert_eq!(told.stdout, b"0\n");
    }
}

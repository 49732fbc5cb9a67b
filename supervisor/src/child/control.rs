//! Starting, signalling, reaping and finding again the child process.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::ExitStatusExt},
    path::Path,
    process::ExitStatus,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp},
};

use super::spec::{MARKER, PROCESS, RELEASE};
use crate::home::Home;

/// A process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    pub pid: u32,
    pub how: String,
    /// Its exit code, if it was not killed.
    pub code: Option<i32>,
}

/// Collects every process of ours that has ended, orphans that fell to us included.
pub fn reap() -> Vec<Reaped> {
    let mut all = Vec::new();
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                let how = describe(ExitStatus::from_raw(code << 8));
                all.push(Reaped {
                    pid: pid.as_raw().unsigned_abs(),
                    how,
                    code: Some(code),
                });
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                let how = format!("killed by {signal}");
                all.push(Reaped {
                    pid: pid.as_raw().unsigned_abs(),
                    how,
                    code: None,
                });
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return all,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "could not collect ended processes");
                return all;
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    let code = status.code().unwrap_or(-1);
    let meaning = shared::Exit::ALL
        .iter()
        .find(|(exit, _)| i32::from(exit.code()) == code && code > 2)
        .map(|(_, meaning)| format!(" ({meaning})"))
        .unwrap_or_default();
    format!("exit code {code}{meaning}")
}

/// Sends SIGTERM to the child alone: its own shutdown decides about its helpers.
pub fn terminate(pid: u32) {
    match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %error, "could not signal the child"),
    }
}

/// Kills the child and everything in its group.
pub fn kill_group(group: u32) {
    if let Err(error) = shared::process::signal_group(group, Signal::SIGKILL) {
        tracing::debug!(group, %error, "could not kill the group");
    }
}

/// Kills whatever bears the mark of a child of `home`, also what left the child's group. While a child
/// runs this ends it too.
pub fn kill_all(home: &Home) {
    for pid in marked(home) {
        if let Err(error) = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL) {
            tracing::debug!(pid, %error, "could not kill a process of the child");
        }
    }
}

/// Returns whether anything of the child still runs: its group, or whatever bears its mark. Zombies
/// do not count: where an adopted child ends, collecting it is up to another process, which may
/// never do so.
pub fn family_runs(home: &Home, group: u32) -> bool {
    group_runs(group) || marked(home).next().is_some()
}

/// Returns whether anything of the group still runs.
pub fn group_runs(group: u32) -> bool {
    shared::process::group_alive(group)
        && processes()
            .any(|pid| Stat::read(pid).is_some_and(|stat| stat.group == group && !stat.dead))
}

/// A supervisor that was started by a child of its own is not one of them.
fn marked(home: &Home) -> impl Iterator<Item = u32> {
    let own = getpgrp().as_raw().unsigned_abs();
    processes().filter(move |pid| {
        Environment::read(*pid).is_some_and(|environment| environment.is_of(home))
            && Stat::read(*pid).is_some_and(|stat| stat.group != own && !stat.dead)
    })
}

struct Environment(Vec<u8>);

impl Environment {
    fn read(pid: u32) -> Option<Self> {
        fs::read(format!("/proc/{pid}/environ")).ok().map(Self)
    }

    fn variable(&self, name: &str) -> Option<&[u8]> {
        let mut entries = self.0.split(|byte| *byte == 0);
        entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    fn is_of(&self, home: &Home) -> bool {
        let Some(marked) = self.variable(MARKER) else {
            return false;
        };
        // The same folder may go by many names.
        let at = |path: &Path| {
            fs::metadata(path)
                .map(|found| (found.dev(), found.ino()))
                .ok()
        };
        let marked = Path::new(OsStr::from_bytes(marked));
        marked == home.path() || at(marked).is_some_and(|found| Some(found) == at(home.path()))
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A child that an earlier supervisor left running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChild {
    pub pid: u32,
    /// The release it was started from; empty if that can't be told.
    pub release: String,
    /// Its start time in clock ticks since boot: with the pid, its identity.
    pub started: u64,
}

/// Looks for children left running: leaders of a process group that carry our marker and, unless an
/// older supervisor started them, their own process id. This needs no note of a pid, so it also finds
/// a child whose supervisor died right after starting it. A helper that the child put into a session
/// of its own carries the child's.
pub fn find_left_behind(home: &Home) -> Vec<FoundChild> {
    processes().filter_map(|pid| examine(pid, home)).collect()
}

fn examine(pid: u32, home: &Home) -> Option<FoundChild> {
    let environment = Environment::read(pid).filter(|environment| environment.is_of(home))?;
    let process = environment.variable(PROCESS);
    if process.is_some_and(|process| process != pid.to_string().as_bytes()) {
        return None;
    }
    let stat = Stat::read(pid).filter(|stat| stat.group == pid && !stat.dead)?;
    let release = environment.variable(RELEASE).unwrap_or_default();
    Some(FoundChild {
        pid,
        release: String::from_utf8_lossy(release).into_owned(),
        started: stat.started,
    })
}

/// Returns whether this very process still runs; for a child that is not ours to wait for.
pub fn still_runs(pid: u32, started: u64) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.started == started && !stat.dead)
}

struct Stat {
    group: u32,
    started: u64,
    dead: bool,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything, so count from its end.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_explained() {
        assert_eq!(describe(ExitStatus::from_raw(0)), "exit code 0");
        assert_eq!(
            describe(ExitStatus::from_raw(78 << 8)),
            "exit code 78 (the configuration is wrong; restarting will not help)"
        );
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let stat = Stat::read(std::process::id()).unwrap();
        assert!(still_runs(std::process::id(), stat.started));
        assert!(!still_runs(std::process::id(), stat.started + 1));
    }
}

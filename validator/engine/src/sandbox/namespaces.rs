//! The wall around what a process sees: users, processes, network, shared memory, mounts of its own.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, getegid, geteuid},
};

use super::process::{end, fork};

/// Everything but processes, whose numbers a driver must find in `/proc`.
const WORLD: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNS);

/// What is tried, best first. A container that hides parts of `/proc` allows none of its own, and some systems
/// keep user namespaces from programs that they don't know; root needs none.
const TRIES: [CloneFlags; 4] = [
    WORLD
        .union(CloneFlags::CLONE_NEWPID)
        .union(CloneFlags::CLONE_NEWUSER),
    WORLD.union(CloneFlags::CLONE_NEWPID),
    WORLD.union(CloneFlags::CLONE_NEWUSER),
    WORLD,
];

/// The namespaces that this system allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespaces(CloneFlags);

impl Namespaces {
    /// Finds out by trying, in a process that ends at once.
    pub(super) fn possible() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for flags in TRIES {
            match trial(Self(flags)) {
                Ok(()) => return Ok(Self(flags)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn of_processes(self) -> bool {
        self.0.contains(CloneFlags::CLONE_NEWPID)
    }

    pub(super) fn of_users(self) -> bool {
        self.0.contains(CloneFlags::CLONE_NEWUSER)
    }

    /// Leaves the namespaces of before; that of processes is for those started from now on.
    pub(super) fn enter(self) -> io::Result<()> {
        let (user, group) = (geteuid(), getegid());
        unshare(self.0)?;
        if self.of_users() {
            // Without privileges, a user can be mapped to itself only, and groups stay as they are.
            set("/proc/self/setgroups", "deny")?;
            set("/proc/self/uid_map", &format!("{user} {user} 1"))?;
            set("/proc/self/gid_map", &format!("{group} {group} 1"))?;
        }
        let none = None::<&str>;
        // What is mounted here from now on is seen here only.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        Ok(())
    }

    /// Shows the processes of the new namespace; to be called by its first one.
    pub(super) fn show_processes() -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            flags,
            None::<&str>,
        )?)
    }

    pub(super) fn words(self) -> String {
        let users = if self.of_users() { "users, " } else { "" };
        let processes = if self.of_processes() {
            "processes, "
        } else {
            ""
        };
        format!("own {users}{processes}network, shared memory, mounts")
    }
}

fn trial(namespaces: Namespaces) -> io::Result<()> {
    match fork()? {
        ForkResult::Child => end(i32::from(all_of(namespaces).is_err())),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        },
    }
}

fn all_of(namespaces: Namespaces) -> io::Result<()> {
    namespaces.enter()?;
    if !namespaces.of_processes() {
        return Ok(());
    }
    match fork()? {
        ForkResult::Child => end(i32::from(Namespaces::show_processes().is_err())),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        },
    }
}

fn set(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

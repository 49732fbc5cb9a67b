//! What a process sees: users, processes, network, shared memory and mounts of its own.

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

use crate::fork::{end, fork};

/// The namespaces that this system allows.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces(CloneFlags);

impl Namespaces {
    /// Finds the first of `tries` that this system allows, by trying it and what is to be done there in a
    /// process that ends at once. Call it while this one has one thread.
    pub fn possible(tries: &[CloneFlags], inside: impl Fn() -> io::Result<()>) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for flags in tries {
            let namespaces = Self(*flags);
            match trial(|| all_of(namespaces, &inside)) {
                Ok(()) => return Ok(namespaces),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub fn of_processes(self) -> bool {
        self.0.contains(CloneFlags::CLONE_NEWPID)
    }

    pub fn of_users(self) -> bool {
        self.0.contains(CloneFlags::CLONE_NEWUSER)
    }

    /// Leaves the namespaces of before; that of processes is for those started from now on.
    pub fn enter(self) -> io::Result<()> {
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
    pub fn show_processes() -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            flags,
            None::<&str>,
        )?)
    }

    pub fn words(self) -> String {
        let own = [
            (CloneFlags::CLONE_NEWUSER, "users"),
            (CloneFlags::CLONE_NEWPID, "processes"),
            (CloneFlags::CLONE_NEWNET, "network"),
            (CloneFlags::CLONE_NEWIPC, "shared memory"),
            (CloneFlags::CLONE_NEWNS, "mounts"),
        ];
        let own = own.into_iter().filter(|(flag, _)| self.0.contains(*flag));
        let own: Vec<&str> = own.map(|(_, name)| name).collect();
        format!("own {}", own.join(", "))
    }
}

/// Does it in a process that ends at once.
fn trial(what: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fork()? {
        // What went wrong is told by the exit code, as far as it fits into one.
        ForkResult::Child => end(what().map_or_else(
            |error| {
                error
                    .raw_os_error()
                    .filter(|code| *code < 256)
                    .unwrap_or(255)
            },
            |()| 0,
        )),
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code @ 1..255) => Err(io::Error::from_raw_os_error(code)),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        },
    }
}

fn all_of(namespaces: Namespaces, inside: impl Fn() -> io::Result<()>) -> io::Result<()> {
    namespaces.enter()?;
    inside()?;
    if namespaces.of_processes() {
        trial(Namespaces::show_processes)?;
    }
    Ok(())
}

fn set(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

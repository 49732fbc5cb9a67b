//! Supervisors on a kernel that lacks something.

use std::{collections::BTreeMap, ffi::OsStr, fs, thread};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{Bench, Running};

impl Bench {
    /// Starts a supervisor from a thread that has given something up, and so has all that it starts.
    pub(crate) fn start_after(
        &self,
        give_up: impl FnOnce() + Send,
        environment: &[(&str, &OsStr)],
        extra: &[&str],
    ) -> Running<'_> {
        thread::scope(|scope| {
            let behind = scope.spawn(|| {
                give_up();
                self.start_in(environment, extra)
            });
            behind.join().unwrap()
        })
    }
}

/// Where root may make control groups of version 2, the calling thread sees none any more.
pub(crate) fn no_control_groups() {
    if !geteuid().is_root() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).unwrap();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let at = line.split(' ').nth(4).unwrap();
        umount2(at, MntFlags::MNT_DETACH).unwrap();
    }
}

/// System calls of the calling thread are answered as by a kernel that does not have them.
pub(crate) fn no_calls(calls: &[libc::c_long]) {
    let rules: BTreeMap<i64, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

//! What a child starts ends with it, wherever it went.

use std::{fs, os::unix::fs::MetadataExt as _};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shared::cgroup::Delegation;
use supervisor::report::ChildReport;

use crate::{
    child::kill_child,
    workbench::{Bench, kernel, text},
};

fn kill_pid(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// Processes of a bench that left the child's group: `sleep`, which `setsid` became.
fn helpers(bench: &Bench) -> usize {
    let mark = format!("SUPERVISOR_HOME={}\0", bench.home.path().display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_helper = |process: &fs::DirEntry| {
        let read = |file: &str| fs::read(process.path().join(file)).unwrap_or_default();
        let environment = read("environ");
        let marked = environment
            .windows(mark.len())
            .any(|window| window == mark.as_bytes());
        marked && read("cmdline").starts_with(b"sleep")
    };
    processes.filter(is_helper).count()
}

#[test]
fn a_helper_in_a_session_of_its_own_is_not_taken_for_the_child_and_ends_with_it() {
    let child = helper_ends_with_the_child(|| {});
    assert_eq!(child.cgroup.is_some(), child.no_cgroup.is_none());
}

#[test]
fn without_a_control_group_a_helper_in_a_session_of_its_own_ends_with_the_child() {
    let child = helper_ends_with_the_child(kernel::no_control_groups);
    assert_eq!(child.cgroup, None);
    assert!(child.no_cgroup.is_some());
}

fn helper_ends_with_the_child(give_up: fn()) -> ChildReport {
    let bench = Bench::new();
    bench.release("one", "setsid");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_after(give_up, &[], &[]);
    bench.settled();
    let child = bench.report().unwrap().child.pid.unwrap();
    bench.wait("the helper runs", || (helpers(&bench) == 1).then_some(()));
    running.crash();
    kill_pid(child);
    let running = bench.start_after(give_up, &[], &[]);
    let report = bench.settled();
    assert_ne!(report.child.pid, Some(child));
    bench.assert_runs(&["one", "one"]);
    bench.wait("only the new helper runs", || {
        (helpers(&bench) == 1).then_some(())
    });
    kill_child(&bench, Signal::SIGKILL);
    bench.until("another child runs", |report| {
        report.child.restarts == 1 && report.child.state == "running"
    });
    bench.wait("only its helper runs", || {
        (helpers(&bench) == 1).then_some(())
    });
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    assert_eq!(helpers(&bench), 0);
    report.child
}

/// Helpers that left the child's session and environment, in the order of their start.
fn escaped(bench: &Bench) -> Vec<u32> {
    let text = fs::read_to_string(bench.home.path().join("escaped")).unwrap_or_default();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

fn sleeps(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
}

/// What is left of control groups of a bench.
fn groups_left(bench: &Bench) -> usize {
    let inode = fs::metadata(bench.home.path()).unwrap().ino();
    let name = format!("-{inode:x}");
    let entries = fs::read_dir(Delegation::here().unwrap().folder).unwrap();
    let entries = entries.flatten().map(|entry| entry.file_name());
    entries
        .filter(|entry| {
            let entry = entry.to_string_lossy();
            entry.starts_with("child-app-") && entry.ends_with(&name)
        })
        .count()
}

#[test]
fn a_helper_that_leaves_every_trace_behind_ends_with_the_child() {
    let bench = Bench::new();
    bench.release("one", "escapes");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&[]);
    if let Some(why) = bench.report().unwrap().child.no_cgroup {
        return e2e::skip(&why);
    }
    let helper = |number: usize| {
        bench.wait("the helper runs", || {
            escaped(&bench)
                .get(number)
                .copied()
                .filter(|pid| sleeps(*pid))
        })
    };
    let first = helper(0);
    let report = bench.report().unwrap();
    assert!(report.child.cgroup.is_some(), "{report:#?}");
    let said = text(&bench.command(&["status", "--child-name", "app"]));
    assert!(
        said.contains("all that the child starts ends with it"),
        "{said}"
    );
    kill_child(&bench, Signal::SIGKILL);
    bench.until("another child runs", |report| {
        report.child.restarts == 1 && report.child.state == "running"
    });
    let second = helper(1);
    // The new child starts when the group is empty.
    assert!(!sleeps(first));
    // The supervisor is updated, or killed: nothing of this is remembered.
    running.crash();
    let running = bench.start_and_settle(&[]);
    let report = bench.report().unwrap();
    assert!(
        sleeps(second) && report.child.cgroup.is_some(),
        "{report:#?}"
    );
    running.crash();
    kill_pid(report.child.pid.unwrap());
    let running = bench.start_and_settle(&[]);
    let third = helper(2);
    bench.wait("the second helper has ended", || {
        (!sleeps(second)).then_some(())
    });
    assert_eq!(groups_left(&bench), 1);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    assert!(!sleeps(third));
    assert_eq!(groups_left(&bench), 0);
}

/// Kernels before 5.7, and walls of containers, have no clone3(2).
#[test]
fn a_kernel_that_starts_nothing_in_a_group_has_the_child_move_there() {
    let child = helper_ends_with_the_child(|| kernel::no_calls(&[libc::SYS_clone3]));
    assert_eq!(child.cgroup.is_some(), child.no_cgroup.is_none());
}

#[test]
fn a_group_that_systemd_has_marked_is_left_to_us() {
    let folder = tempfile::tempdir().unwrap();
    let mounts = format!(
        "1 1 0:1 / {} rw - cgroup2 cgroup2 rw",
        folder.path().display()
    );
    let unit = folder.path().join("a.service");
    fs::create_dir(&unit).unwrap();
    let found = || Delegation::find(&mounts, "0::/a.service").map(|found| found.folder);
    found().unwrap_err();
    if let Err(error) = xattr::set(&unit, "user.delegate", b"1") {
        return e2e::skip(&format!(
            "the file system of temporary files keeps no attributes: {error}"
        ));
    }
    assert_eq!(found().unwrap(), unit);
}

//! A wall clock that jumps while supervisor and child run: nothing is measured with it.

use std::ffi::OsStr;

use crate::workbench::Bench;
use e2e::wall_clock::WallClock;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use shared::clock;
use supervisor::report::Report;

const HOUR: i64 = 3600;

/// Sets the clock and waits until the remote was asked once more.
fn jump(bench: &Bench, clock: &WallClock, offset: i64) -> Report {
    clock.set(offset);
    bench.until("it polls at the new time", |report| {
        let polled = report.update.polled_at.as_deref();
        let polled: Timestamp = polled.unwrap_or_default().parse().unwrap_or_default();
        let off = polled.duration_since(clock::now()) - SignedDuration::from_secs(offset);
        off.abs() < SignedDuration::from_mins(10)
    })
}

#[test]
fn a_clock_that_jumps_stops_no_child_and_no_update() {
    let bench = Bench::new();
    bench.release("one", "talkative");
    bench.git_checkout(&["pull", "-q"]);
    let clock = WallClock::new(bench.path());
    let environment = clock
        .environment()
        .map(|(name, value)| (name, OsStr::new(value)));
    let flags = "--interval 500ms --watchdog 5s --probation 3s";
    let flags: Vec<&str> = flags.split(' ').collect();
    let _running = bench.start_in(&environment, &flags);
    let first = bench.settled().child;
    for offset in [HOUR, -HOUR] {
        let child = jump(&bench, &clock, offset).child;
        assert_eq!((child.pid, child.restarts), (first.pid, 0));
    }

    // Taken by polling alone; the clock jumps once more while it is on probation.
    let two = bench.release("two", "talkative");
    let accepted = |report: &Report| {
        let version = report.update.accepted.as_ref();
        version.is_some_and(|version| version.commit == two)
    };
    bench.until("the commit is tried", |report| {
        report.update.phase == "probation" || accepted(report)
    });
    clock.set(HOUR);
    let report = bench.until("the commit is accepted", accepted);
    assert!(report.update.quarantine.is_empty(), "{report:#?}");
    bench.assert_runs(&["one", "two"]);

    // And once more in the pause before a restart.
    let pid = report.child.pid.unwrap();
    kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        Signal::SIGKILL,
    )
    .unwrap();
    bench.until("it is gone", |report| report.child.pid != Some(pid));
    clock.set(-HOUR);
    let report = bench.until("another one runs", |report| report.child.state == "running");
    assert_eq!(report.child.restarts, 1, "{report:#?}");
    let failure = report.child.last_failure.unwrap();
    assert_eq!(failure, "killed by SIGKILL");
    bench.assert_runs(&["one", "two", "two"]);
}

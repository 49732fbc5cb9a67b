//! Keeping the child alive: restarts, exit codes, hangs, groups, logs.

use std::{collections::BTreeMap, fs, process::Stdio};

use crate::workbench::{Bench, subprocesses, text, write};
use nix::sys::signal::{Signal, kill};
use supervisor::{child::control::group_runs, control::Request};

pub(crate) fn kill_child(bench: &Bench, signal: Signal) -> u32 {
    let pid = bench.report().unwrap().child.pid.unwrap();
    kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
    pid
}

#[test]
fn a_child_that_crashes_is_restarted_after_a_pause() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    for restarts in 1..=2 {
        let pid = kill_child(&bench, Signal::SIGKILL);
        let report = bench.until("another one runs", |report| {
            report.child.state == "running" && report.child.pid != Some(pid)
        });
        assert_eq!(report.child.restarts, restarts);
        assert_eq!(
            report.child.last_failure.as_deref(),
            Some("killed by SIGKILL")
        );
    }
}

#[test]
fn a_misconfigured_child_is_left_alone_until_a_command_or_a_commit() {
    let bench = Bench::new();
    bench.release("one", "misconfigured");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start(&[]);
    let down = |report: &supervisor::report::Report| report.child.state == "misconfigured";
    let report = bench.until("it gives up", down);
    assert!(
        report
            .child
            .last_failure
            .unwrap()
            .starts_with("exit code 78")
    );
    bench.ask(&Request::Restart).unwrap();
    bench.wait("it was tried again", || {
        (bench.runs().len() == 2).then_some(())
    });
    bench.until("it gives up again", down);
    bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.child.state, "running");
    bench.assert_runs(&["one", "one", "two"]);
}

#[test]
fn a_restart_waits_until_the_whole_group_is_gone() {
    let bench = Bench::new();
    bench.release("one", "grandchild");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&[]);
    let group = bench.report().unwrap().child.pid.unwrap();
    bench.ask(&Request::Restart).unwrap();
    bench.until("another one runs", |report| {
        report.child.state == "running" && report.child.pid != Some(group)
    });
    assert!(!group_runs(group));
    let group = bench.report().unwrap().child.pid.unwrap();
    running.signal(Signal::SIGINT);
    assert_eq!(running.ended().code(), Some(0));
    assert!(!group_runs(group));
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_in_the_end_and_at_once_when_asked_twice() {
    let bench = Bench::new();
    bench.release("one", "ignores-sigterm");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&["--stop-timeout", "500ms"]);
    bench.release("two", "ignores-sigterm");
    bench.update();
    bench.assert_runs(&["one", "two"]);
    running.crash();
    let running = bench.start(&["--stop-timeout", "1h"]);
    bench.settled();
    running.signal(Signal::SIGTERM);
    bench.until("it is being stopped", |report| {
        report.child.state == "stopping"
    });
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    assert_eq!(bench.children(), []);
}

#[test]
fn a_start_that_is_killed_while_it_waits_is_made_again_and_blamed_on_nobody() {
    let bench = Bench::new();
    bench.release("one", "ignores-sigterm");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&["--stop-timeout", "1h"]);
    bench.release("two", "");
    bench.ask(&Request::Update {
        force: false,
        local: false,
    });
    bench.until("the first is being stopped", |report| {
        report.child.state == "stopping"
    });
    let waiting = bench.wait("the second is prepared", || {
        subprocesses(running.pid(), "launch").pop()
    });
    let waiting = nix::unistd::Pid::from_raw(waiting.cast_signed());
    kill(waiting, Signal::SIGKILL).unwrap();
    kill_child(&bench, Signal::SIGKILL);
    bench.until("the second runs", |report| report.child.state == "running");
    let report = bench.settled();
    assert_eq!(report.child.last_failure, None);
    assert_eq!(report.update.quarantine, BTreeMap::new());
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn a_child_that_falls_silent_is_restarted() {
    let bench = Bench::new();
    bench.release("one", "hangs");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start(&["--watchdog", "300ms"]);
    let report = bench.until("it was restarted", |report| report.child.restarts > 0);
    let failure = report.child.last_failure.unwrap();
    assert_eq!(failure, "fell silent (no WATCHDOG=1) and was killed");
}

#[test]
fn a_child_that_never_gets_ready_is_taken_back_and_a_silent_one_is_not() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&["--ready-timeout", "500ms"]);
    let bad = bench.release("two", "never-ready");
    let report = bench.update();
    assert!(
        report.update.quarantine[&bad].contains("not ready"),
        "{report:#?}"
    );
    let good = bench.release("three", "silent");
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, good);
}

#[test]
fn the_output_survives_crashes_and_rotation_without_a_gap() {
    let bench = Bench::new();
    bench.release("one", "chatty");
    bench.git_checkout(&["pull", "-q"]);
    let flags = ["--log-max-size", "2k", "--log-keep", "1000"];
    let running = bench.start_and_settle(&flags);
    let enough = |lines: usize| {
        bench.wait("it has said enough", || {
            (said(&bench).len() > lines).then_some(())
        });
    };
    enough(300);
    running.crash();
    let running = bench.start(&flags);
    enough(1000);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    let said = said(&bench);
    let expected: Vec<String> = (0..said.len()).map(|n| format!("line {n}")).collect();
    assert_eq!(said, expected);
    assert!(
        fs::read_dir(bench.home.path().join("logs"))
            .unwrap()
            .count()
            > 5
    );
}

/// All lines the chatty child has written, oldest first.
fn said(bench: &Bench) -> Vec<String> {
    let logs = bench.home.path().join("logs");
    let mut files: Vec<(u32, std::path::PathBuf)> = Vec::new();
    for entry in fs::read_dir(logs).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(number) = name.strip_prefix("app.log") {
            files.push((
                number.trim_start_matches('.').parse().unwrap_or(0),
                entry.path(),
            ));
        }
    }
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let text: String = files
        .iter()
        .map(|(_, path)| fs::read_to_string(path).unwrap_or_default())
        .collect();
    text.lines()
        .filter(|line| line.starts_with("line "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn limits_reach_the_child() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&["--nice", "5", "--memory-max", "1G"]);
    // Until it speaks, the process may still be on its way to becoming the program.
    let report = bench.until("the child speaks", |report| report.child.says.is_some());
    let pid = report.child.pid.unwrap();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let data = limits
        .lines()
        .find(|line| line.starts_with("Max data size"))
        .unwrap();
    assert!(data.contains("1073741824"), "{data}");
    let niceness = |process: &str| -> i32 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    assert_eq!(niceness(&pid.to_string()), (niceness("self") + 5).min(19));
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(program.ends_with("app"), "{program:?}");
}

#[test]
fn options_come_from_flags_then_environment_then_file() {
    let bench = Bench::new();
    let file = bench.path().join("supervisor.toml");
    write(
        &file,
        "log-keep = 7\nwindow = \"01:00-02:00\"\nnotify = [\"true\", \"cat\"]\n",
    );
    let config = file.to_str().unwrap();
    let _running = bench.start_and_settle(&["--config", config]);
    write(&file, "no-such-option = 1\n");
    let wrong = bench.run(&["--config", config]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(
        text(&wrong).contains("there is no option no-such-option"),
        "{}",
        text(&wrong)
    );
    let lost = bench.command(&["--pm2_name", "app", "--wallet.name", "cold"]);
    assert_eq!(lost.status.code(), Some(2));
    assert!(text(&lost).contains("supervisor --pm2_name app -- --wallet.name cold"));
}

#[test]
fn a_configuration_that_is_being_edited_keeps_no_child_from_starting() {
    let bench = Bench::new();
    let file = bench.path().join("supervisor.toml");
    write(&file, "log-keep = 7\n");
    let running = bench.start_in(&[("SUPERVISOR_CONFIG", file.as_os_str())], &[]);
    bench.settled();
    write(&file, "log-keep = \n");
    let pid = kill_child(&bench, Signal::SIGKILL);
    bench.until("another one runs", |report| {
        report.child.state == "running" && report.child.pid != Some(pid)
    });
    // Steps of updates neither.
    let two = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn a_program_that_can_not_be_started_is_named_with_an_exit_code_of_its_own() {
    let bench = Bench::new();
    let word = bench.path().join("word");
    write(&word, "\n");
    let launched = |word: Stdio| {
        let line = ["launch", "--home", "x", "--release", "x", "--"];
        let mut command = bench.base(line.into_iter().chain(["/nonexistent/app"]));
        command.stdin(word).output().unwrap()
    };
    let gone = launched(fs::File::open(&word).unwrap().into());
    assert_eq!(gone.status.code(), Some(74));
    let said = text(&gone);
    assert!(said.contains("could not start /nonexistent/app"), "{said}");
    // Whoever would have said so is gone: nothing is started.
    let unwanted = launched(Stdio::null());
    assert_eq!(
        (unwanted.status.code(), text(&unwanted)),
        (Some(0), String::new())
    );
}

#[test]
fn a_state_directory_by_another_name_is_the_same() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    running.crash();
    let other = bench.path().join("other");
    std::os::unix::fs::symlink(bench.path().join("state"), &other).unwrap();
    let _running = bench.start_in(&[("SUPERVISOR_STATE_DIR", other.as_os_str())], &[]);
    let report = bench.settled();
    assert_eq!(report.child.pid, pid);
    bench.assert_runs(&["one"]);
}

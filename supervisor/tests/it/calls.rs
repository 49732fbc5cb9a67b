//! Being called: what is wrong is told once when it has lasted, and once more when it is over.

use std::{ffi::OsStr, fs, io::Read, io::Write, net::TcpListener};

use crate::workbench::{Bench, text};
use e2e::wall_clock::WallClock;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::task::panic_message;
use supervisor::control::Request;

const MINUTE: i64 = 60;

/// What a command was told that is no outcome of an update: cause and health of each notice.
fn notices(bench: &Bench) -> Vec<(String, String)> {
    let told = fs::read_to_string(bench.path().join("told")).unwrap_or_default();
    let lines = told
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let notices = lines.filter_map(|message: Value| {
        assert_eq!(message["child"], "app");
        let notice = message.get("notice")?;
        let health = notice["health"].as_str().unwrap_or("over");
        Some((notice["cause"].as_str()?.to_owned(), health.to_owned()))
    });
    notices.collect()
}

fn wait_for(bench: &Bench, what: &str, expected: &[(&str, &str)]) {
    bench.wait(what, || {
        // Whoever asks for the status wakes it.
        bench.report()?;
        let notices = notices(bench);
        let notices: Vec<_> = notices
            .iter()
            .map(|(cause, health)| (cause.as_str(), health.as_str()))
            .collect();
        (notices == expected).then_some(())
    });
}

/// Kills the child until it has failed so often in a row.
fn fail(bench: &Bench, times: usize) {
    for _ in 0..times {
        let report = bench.until("it runs", |report| report.child.state == "running");
        let pid = report.child.pid.unwrap();
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        bench.until("it is gone", |report| report.child.pid != Some(pid));
    }
}

#[test]
fn a_crash_loop_and_lasting_trouble_with_updates_are_told_once_and_when_they_are_over() {
    let bench = Bench::new();
    let clock = WallClock::new(bench.path());
    let environment = clock
        .environment()
        .map(|(name, value)| (name, OsStr::new(value)));
    let told = bench.path().join("told");
    let command = format!("cat >> {0}; echo >> {0}", told.display());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slack = format!("slack:http://{}/secret", listener.local_addr().unwrap());
    // One that can't be told keeps the others from nothing.
    let flags = [
        "--notify", "exit 3", "--notify", &slack, "--notify", &command,
    ];
    let posts =
        std::thread::spawn(move || -> Vec<String> { (0..5).map(|_| taken(&listener)).collect() });
    let _running = bench.start_in(&environment, &flags);
    bench.settled();

    fail(&bench, 3);
    let mut expected = vec![("crash-loop", "red")];
    wait_for(&bench, "the crash loop is told", &expected);
    fail(&bench, 1);
    bench.until("it runs again", |report| report.child.state == "running");
    bench.wait("it may be asked to", || bench.ask(&Request::Restart));
    bench.until("it runs afresh", |report| report.child.state == "running");
    clock.set(5 * MINUTE);
    expected.push(("crash-loop", "over"));
    wait_for(&bench, "the end of the crash loop is told", &expected);

    let (remote, away) = (bench.path().join("remote.git"), bench.path().join("away"));
    fs::rename(&remote, &away).unwrap();
    assert!(bench.update().update.problem.is_some());
    // Nobody is called for an hour.
    clock.set(50 * MINUTE);
    wait_for(&bench, "nothing more is told", &expected);
    clock.set(90 * MINUTE);
    expected.push(("updates", "yellow"));
    wait_for(&bench, "that updates stay away is told", &expected);
    fs::rename(&away, &remote).unwrap();
    assert_eq!(bench.update().update.problem, None);
    clock.set(100 * MINUTE);
    expected.push(("updates", "over"));
    wait_for(&bench, "that updates come again is told", &expected);

    let posts = posts
        .join()
        .map_err(|panic| panic_message(&*panic))
        .unwrap();
    let [accepted, loops, over, updates, back] = posts.as_slice() else {
        panic!("{posts:?}");
    };
    assert!(
        accepted.contains("supervisor of app: accepted, "),
        "{accepted}"
    );
    assert!(
        loops.contains("supervisor of app: RED, crash-loop: the child failed 3 times in a row")
            && loops.contains("killed by SIGKILL")
            && loops.contains("What to do: `supervisor logs`"),
        "{loops}"
    );
    assert!(over.contains("recovered, crash-loop: over: "), "{over}");
    assert!(
        updates.contains("yellow, updates: no updates: "),
        "{updates}"
    );
    assert!(back.contains("recovered, updates: over: "), "{back}");
    let log = bench.supervisor_log();
    assert!(!log.contains("/secret"), "{log}");
}

#[test]
fn a_child_that_will_not_be_started_again_is_told_at_once() {
    let bench = Bench::new();
    bench.release("one", "misconfigured");
    bench.git_checkout(&["pull", "-q"]);
    let told = bench.path().join("told");
    let command = format!("cat >> {0}; echo >> {0}", told.display());
    let _running = bench.start(&["--notify", &command]);
    wait_for(&bench, "it is told", &[("misconfigured", "red")]);
}

#[test]
fn a_target_that_is_none_is_refused() {
    let bench = Bench::new();
    let output = bench.run(&["--notify", "slack:nowhere"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not an address"), "{said}");
}

/// Takes a request; returns the text that Slack would show.
fn taken(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        request.extend(&buffer[..read]);
        let text = String::from_utf8_lossy(&request);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Ok(message) = serde_json::from_str::<Value>(body) {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
            return message["text"].as_str().unwrap().to_owned();
        }
    }
}

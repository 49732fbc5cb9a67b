//! The commands an operator types, and what hooks, notices, metrics and windows do.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use crate::workbench::{Bench, text, write};
use shared::Exit;
use supervisor::control::Request;

#[test]
fn check_says_what_an_update_would_do_and_does_nothing() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let check = || text(&bench.command(&["check"]));
    assert_eq!(check(), "up to date\n");
    bench.write("README.md", "two\n");
    bench.commit("docs");
    bench.push();
    assert!(check().contains("without a restart"), "{}", check());
    bench.release("two", "");
    assert!(check().contains("would build and switch to"), "{}", check());
    let report = bench.report().unwrap();
    assert_eq!(report.update.accepted.unwrap().summary, "one");
    bench.assert_runs(&["one"]);
}

#[test]
fn rollback_goes_back_and_stays_there_until_a_newer_commit() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let none = bench.command(&["rollback"]);
    assert_eq!(none.status.code(), Some(3));
    let two = bench.release("two", "");
    bench.update();
    assert!(bench.command(&["rollback"]).status.success());
    let report = bench.settled();
    assert!(report.update.quarantine[&two].contains("by the operator"));
    bench.update();
    bench.assert_runs(&["one", "two", "one"]);
    let three = bench.release("three", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
    let history = text(&bench.command(&["history"]));
    for word in ["accepted", "rolled back", "two", "three"] {
        assert!(history.contains(word), "{word} in {history}");
    }
    let entries = bench.command(&["history", "--json"]);
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&entries.stdout).unwrap();
    assert_eq!(entries.len(), 4);
}

#[test]
fn status_and_logs_are_for_people_and_programs() {
    let bench = Bench::new();
    let none = bench.command(&["status", "--child-name", "app"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none).contains("no supervisor of app is running"));
    let running = bench.start_and_settle(&[]);
    bench.until("the child says how it is", |report| {
        report.child.says.is_some()
    });
    let status = text(&bench.command(&["status"]));
    for word in ["app  running, pid", "accepted", "well", "app.log"] {
        assert!(status.contains(word), "{word} in {status}");
    }
    let json = bench.command(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["child"]["state"], "running");
    bench.wait("the log is written", || {
        bench.child_log().contains("arguments").then_some(())
    });
    assert_eq!(
        text(&bench.command(&["logs", "-n", "1"])),
        "arguments [\"--name\", \"x y\"]\n"
    );
    let pid = bench.report().unwrap().child.pid;
    running.crash();
    let alone = bench.command(&["--child-name", "app", "status"]);
    assert_eq!(alone.status.code(), Some(1));
    let said = text(&alone);
    for word in [
        "app  running, pid",
        "not running",
        "no supervisor of app is running",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let json = bench.command(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["child"]["pid"], serde_json::json!(pid));
    assert_eq!(json["update"]["accepted"]["summary"], "one");
}

#[test]
fn a_commit_message_steers_no_terminal() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    bench.write("README.md", "two\n");
    bench.commit("docs\u{202e}\u{7} of\rACCEPTED");
    bench.push();
    let summary = bench.update().update.accepted.unwrap().summary;
    assert!(
        summary.starts_with("docs\u{fffd}\u{fffd} of"),
        "{summary:?}"
    );
    for command in ["status", "history", "check"] {
        let said = text(&bench.command(&[command]));
        let steers = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
        assert!(!said.contains(steers), "{said:?}");
    }
}

#[test]
fn outside_a_checkout_nothing_is_tried_again() {
    let bench = Bench::new();
    let folder = bench.build_folder();
    let outside = bench.run(&["--repo", &folder]);
    assert_eq!(outside.status.code(), Some(78));
    let said = text(&outside);
    assert!(
        said.contains("no git checkout at") && said.contains("--repo"),
        "{said}"
    );
}

#[test]
fn hooks_and_notices_say_what_happened() {
    let bench = Bench::new();
    let (veto, notes, failures) = (
        bench.path().join("veto"),
        bench.path().join("notes"),
        bench.path().join("failures"),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let pre = format!("if test -e {}; then exit 75; fi", veto.display());
    let note = format!("cat >> {}; echo >> {}", notes.display(), notes.display());
    let failure = format!("echo $SUPERVISOR_COMMIT >> {}", failures.display());
    let flags = [
        "--pre-update",
        &pre,
        "--notify",
        &note,
        "--notify",
        &url,
        "--on-failure",
        &failure,
    ];
    let _running = bench.start_and_settle(&flags);
    let posted = post(&listener);
    assert!(
        posted.contains("POST /hook") && posted.contains(r#""result":"accepted""#),
        "{posted}"
    );
    write(&veto, "");
    let two = bench.release("two", "crash");
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("not now"));
    assert!(report.update.quarantine.is_empty());
    fs::remove_file(&veto).unwrap();
    bench.update();
    drop(post(&listener));
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    bench.wait("the hook and the command were told", || {
        let noted = read(&notes).contains(r#""result":"rolled-back""#);
        (noted && read(&failures).ends_with('\n')).then_some(())
    });
    assert_eq!(read(&failures).trim(), two);
}

fn post(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 16 << 10];
    let mut length = 0;
    while !String::from_utf8_lossy(&bytes[..length]).contains(r#""child":"app""#) {
        length += stream.read(&mut bytes[length..]).unwrap();
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn a_busy_child_is_waited_for_and_not_for_ever() {
    let bench = Bench::new();
    bench.release("one", "busy");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start_and_settle(&["--max-wait", "1s"]);
    let report = bench.until("it says that it is busy", |report| {
        report.child.restart.is_some()
    });
    assert_eq!(
        report.child.restart.unwrap().reason,
        "an extrinsic is in flight"
    );
    bench.release("two", "");
    bench.update();
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn metrics_are_served_where_told() {
    let bench = Bench::new();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let _running = bench.start_and_settle(&["--metrics-addr", &free]);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(&free).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = ask("/metrics");
    for line in ["supervisor_child_up 1", "supervisor_child_restarts_total 0"] {
        assert!(text.contains(&format!("\n{line}\n")), "{text}");
    }
    for probe in ["/live", "/ready"] {
        let text = ask(probe);
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    }
}

#[test]
fn doctor_finds_what_is_missing() {
    let bench = Bench::new();
    let flags = ["doctor", "--child-name", "app", "--min-disk", "0"];
    let well = bench.command(&flags);
    assert!(well.status.success(), "{}", text(&well));
    fs::rename(bench.path().join("remote.git"), bench.path().join("away")).unwrap();
    let away = bench.command(&flags);
    assert_eq!(away.status.code(), Some(1));
    assert!(text(&away).contains("could not fetch"), "{}", text(&away));
    bench.git_checkout(&["checkout", "-q", "--detach"]);
    let ill = bench.command(&flags);
    assert_eq!(ill.status.code(), Some(1));
    assert!(text(&ill).contains("detached HEAD"), "{}", text(&ill));
}

/// The documented ways to keep a supervisor alive start it again after anything but what a restart does not
/// mend. On its command line pm2 takes one exit code only.
#[test]
fn nothing_that_keeps_a_supervisor_starts_it_again_in_vain() {
    let [usage, denied, config] = [Exit::Usage, Exit::Denied, Exit::Config].map(Exit::code);
    let one = format!("--stop-exit-codes {config} -- ");
    let list = format!("stop_exit_codes: [{usage}, {denied}, {config}]");
    let unit = format!("RestartPreventExitStatus={usage} {denied} {config}\n");
    for (file, line) in [
        ("README.md", one.trim_end()),
        ("scripts/pm2.config.js", &list),
        ("scripts/finetune-vali.service", &unit),
    ] {
        let text = fs::read_to_string(e2e::workspace().join(file)).unwrap();
        assert!(text.contains(line), "{line} in {file}");
        // None that lacks it.
        let starts = text.matches("pm2 start \"").count();
        assert_eq!(starts, text.matches("--stop-exit-codes").count(), "{file}");
    }
}

#[test]
fn a_reload_changes_what_can_be_changed() {
    let bench = Bench::new();
    let file = bench.path().join("supervisor.toml");
    write(&file, "pre-update = \"exit 1\"\n");
    let running = bench.start(&["--config", file.to_str().unwrap()]);
    bench.until("the hook refuses", |report| {
        report
            .update
            .problem
            .as_ref()
            .is_some_and(|problem| problem.contains("refused"))
    });
    write(&file, "pre-update = \"true\"\n");
    running.signal(nix::sys::signal::Signal::SIGHUP);
    bench.wait("it is read", || {
        bench
            .supervisor_log()
            .contains("configuration read")
            .then_some(())
    });
    bench
        .ask(&Request::Update {
            force: true,
            local: false,
        })
        .unwrap();
    bench.settled();
    bench.assert_runs(&["one"]);
}

#[test]
fn a_build_without_room_is_put_off() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    running.crash();
    let _running = bench.start(&["--min-disk", "900T"]);
    bench.release("two", "");
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(problem.contains("GiB free for the build"), "{problem}");
    assert!(report.update.quarantine.is_empty());
    assert_eq!(report.child.pid, pid);
}

#[test]
fn a_signal_looks_for_an_update_and_a_log_is_followed() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let mut follower = bench.spawn(&["logs", "-f", "-n", "9"]);
    let commit = bench.release("two", "");
    running.signal(nix::sys::signal::Signal::SIGUSR1);
    bench.until("the commit is accepted", |report| {
        report
            .update
            .accepted
            .as_ref()
            .is_some_and(|accepted| accepted.commit == commit)
    });
    let mut text = String::new();
    let mut out = follower.stdout.take().unwrap();
    let mut bytes = [0; 256];
    while !text.contains("running two") {
        let length = out.read(&mut bytes).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

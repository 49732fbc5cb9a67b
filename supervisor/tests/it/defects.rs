//! Every defect of the script that this supervisor replaces, tried on the real thing.

use std::{fs, path::Path};

use crate::workbench::{Bench, text, try_git, write};
use nix::sys::signal::Signal;
use supervisor::control::Request;

#[test]
fn network_failure_while_polling_leaves_the_child_alone() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    let (remote, away) = (bench.path().join("remote.git"), bench.path().join("away"));
    fs::rename(&remote, &away).unwrap();
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("could not fetch"));
    assert_eq!(report.child.pid, pid);
    fs::rename(&away, &remote).unwrap();
    let commit = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, commit);
    assert_eq!(report.update.problem, None);
}

#[test]
fn a_remote_that_hangs_keeps_nobody_from_running() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/app.git", listener.local_addr().unwrap());
    let flags = [
        "--remote",
        &url,
        "--branch",
        "main",
        "--fetch-timeout",
        "500ms",
    ];
    let _running = bench.start_and_settle(&flags);
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("took longer than"));
    assert_eq!(report.child.state, "running");
    bench.assert_runs(&["one"]);
}

#[test]
fn conflicting_local_edits_refuse_the_update_and_stay_intact() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    let edited = "pub const VERSION: &str = \"mine\";\npub const BEHAVIOR: &str = \"\";\n";
    write(&bench.checkout().join("src/behavior.rs"), edited);
    bench.release("two", "");
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(
        problem.contains("conflict") && problem.contains("src/behavior.rs"),
        "{problem}"
    );
    assert!(
        problem.contains("git pull --rebase --autostash"),
        "{problem}"
    );
    assert_eq!(report.child.pid, pid);
    assert_eq!(
        fs::read_to_string(bench.checkout().join("src/behavior.rs")).unwrap(),
        edited
    );
    assert_eq!(bench.git_checkout(&["stash", "list"]), "");
    bench.assert_runs(&["one"]);
}

#[test]
fn unmerged_files_in_the_checkout_refuse_the_update() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    write(&bench.checkout().join("README.md"), "mine\n");
    bench.git_checkout(&["commit", "-qam", "mine"]);
    bench.write("README.md", "theirs\n");
    bench.release("two", "");
    let pull = try_git(&bench.checkout(), &["pull", "-q", "--rebase"]);
    assert!(!pull.status.success());
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(problem.contains("unmerged files: README.md"), "{problem}");
    assert_eq!(report.child.pid, pid);
    bench.git_checkout(&["rebase", "--abort"]);
}

#[test]
fn a_build_that_fails_for_want_of_the_network_is_tried_again() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&["--interval", "300ms"]);
    let mirror = bench.path().join("mirror");
    bench.write(
        "build.rs",
        &format!(
            "fn main() {{\n    println!(\"cargo:rerun-if-changed={0}\");\n    \
             if !std::path::Path::new({0:?}).exists() {{\n        \
             panic!(\"failed to download dependency: connection refused\");\n    }}\n}}\n",
            mirror.display().to_string()
        ),
    );
    let commit = bench.release("two", "");
    bench.until("the build fails", |report| {
        report
            .update
            .problem
            .as_ref()
            .is_some_and(|problem| problem.contains("build failed"))
    });
    assert!(bench.report().unwrap().update.quarantine.is_empty());
    write(&mirror, "up");
    let report = bench.until("the same commit is accepted", |report| {
        report
            .update
            .accepted
            .as_ref()
            .is_some_and(|accepted| accepted.commit == commit)
    });
    assert_eq!(report.update.problem, None);
}

#[test]
fn a_commit_that_does_not_build_is_quarantined_until_a_newer_one() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    bench.write("src/main.rs", "fn main() { nonsense }\n");
    let bad = bench.commit("bad");
    bench.push();
    let report = bench.update();
    assert!(report.update.quarantine[&bad].contains("the build failed: error"));
    assert_eq!(report.child.pid, pid);
    let built = fs::metadata(bench.home.path().join("logs/app-build.log")).unwrap();
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("quarantined"));
    let again = fs::metadata(bench.home.path().join("logs/app-build.log")).unwrap();
    assert_eq!(built.modified().unwrap(), again.modified().unwrap());
    bench.git_work(&["revert", "--no-edit", "HEAD"]);
    let good = bench.release("three", "");
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, good);
    assert!(report.update.quarantine.is_empty());
}

#[test]
fn the_running_version_is_untouched_while_the_next_is_built() {
    let bench = Bench::new();
    let folder = bench.build_folder();
    let _running = bench.start_and_settle(&["--build-path", &folder]);
    let before = bench.report().unwrap();
    let [gate, reached] = ["gate", "reached"].map(|name| Path::new(&folder).join(name));
    bench.write(
        "build.rs",
        &format!(
            "fn main() {{\n    std::fs::write({:?}, \"\").unwrap();\n    \
             while !std::path::Path::new({:?}).exists() {{\n        \
             std::thread::sleep(std::time::Duration::from_millis(10));\n    }}\n}}\n",
            reached.display().to_string(),
            gate.display().to_string()
        ),
    );
    let head = bench.git_checkout(&["rev-parse", "HEAD"]);
    bench.release("two", "");
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    bench.wait("the build is under way", || reached.exists().then_some(()));
    let during = bench.report().unwrap();
    assert_eq!(during.update.phase, "building");
    assert_eq!(during.child.pid, before.child.pid);
    assert_eq!(bench.git_checkout(&["rev-parse", "HEAD"]), head);
    assert_eq!(bench.git_checkout(&["status", "--porcelain"]), "");
    let current = fs::canonicalize(bench.home.current()).unwrap();
    assert!(current.ends_with(before.child.release.unwrap()));
    write(&gate, "open");
    bench.settled();
    bench.assert_runs(&["one", "two"]);
    // The checkout is the operator's, and `status` says where it is.
    assert_eq!(bench.git_checkout(&["rev-parse", "HEAD"]), head);
    assert_eq!(bench.git_checkout(&["status", "--porcelain"]), "");
    let shown = text(&bench.command(&["status", "--child-name", "app"]));
    assert!(shown.contains("1 commit behind"), "{shown}");
    bench.git_checkout(&["pull", "-q"]);
    let shown = text(&bench.command(&["status", "--child-name", "app"]));
    assert!(!shown.contains("behind"), "{shown}");
}

#[test]
fn a_version_that_does_not_stay_up_is_taken_back() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&["--probation", "2s"]);
    let first = bench.report().unwrap().update.accepted.unwrap();
    for (version, behavior) in [
        ("two", "crash"),
        ("three", "crash-once-ready"),
        ("four", "red"),
    ] {
        let bad = bench.release(version, behavior);
        let report = bench.update();
        assert!(
            report.update.quarantine.contains_key(&bad),
            "{behavior}: {report:#?}"
        );
        assert_eq!(report.update.accepted.as_ref(), Some(&first));
        assert_eq!(report.child.release.as_ref(), Some(&first.release));
        assert!(
            fs::canonicalize(bench.home.current())
                .unwrap()
                .ends_with(&first.release)
        );
    }
    bench.assert_runs(&["one", "two", "one", "three", "one", "four", "one"]);
    let good = bench.release("five", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, good);
}

#[test]
fn the_time_of_a_new_version_begins_when_the_old_one_has_ended() {
    let bench = Bench::new();
    bench.release("one", "drains-silently");
    bench.git_checkout(&["pull", "-q"]);
    let flags = ["--ready-timeout", "200ms", "--probation", "200ms"];
    let running = bench.start_and_settle(&flags);
    // Not accepted while the old one still ends ...
    let bad = bench.release("two", "crash");
    let report = bench.update();
    let why = &report.update.quarantine[&bad];
    assert!(why.contains("exit code 1"), "{why}");
    bench.assert_runs(&["one", "two", "one"]);
    running.crash();
    // ... and not refused for that either, though ending takes longer than it may need to be ready.
    let _running = bench.start_and_settle(&["--ready-timeout", "4s"]);
    let good = bench.release("three", "talkative");
    let report = bench.update();
    let accepted = report.update.accepted.as_ref();
    assert_eq!(
        accepted.map(|release| &release.commit),
        Some(&good),
        "{report:#?}"
    );
}

#[test]
fn a_version_that_fails_its_smoke_test_never_runs() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let bad = bench.release("two", "check-fails");
    let report = bench.update();
    assert!(
        report.update.quarantine[&bad].contains("no such wallet"),
        "{report:#?}"
    );
    bench.assert_runs(&["one"]);
}

#[test]
fn docs_and_local_commits_restart_nothing() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid;
    bench.write("README.md", "two\n");
    bench.write("docs/guide.txt", "read me\n");
    let docs = bench.commit("docs");
    bench.push();
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, docs);
    assert_eq!(report.child.pid, pid);
    write(&bench.checkout().join("src/mine.rs"), "//! Mine.\n");
    bench.git_checkout(&["add", "-A"]);
    bench.git_checkout(&["commit", "-qm", "mine"]);
    assert_eq!(bench.update().child.pid, pid);
    bench.assert_runs(&["one"]);
}

#[test]
fn a_child_that_drains_is_not_cut_short() {
    let bench = Bench::new();
    bench.release("one", "drains");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start_and_settle(&[]);
    bench.release("two", "");
    bench.update();
    // Two seconds, where pm2 kills after 1.6.
    bench.child_says("drained");
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn a_name_that_is_running_is_refused_by_name() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let second = bench.run(&[]);
    assert_eq!(second.status.code(), Some(77));
    let said = text(&second);
    let holder = format!(
        "already supervised by pid {} (supervisor of app)",
        running.pid()
    );
    assert!(said.contains(&holder), "{said}");
    assert_eq!(bench.children().len(), 1);
}

#[test]
fn sigterm_stops_both_and_sigkill_loses_nothing() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid.unwrap();
    running.crash();
    assert_eq!(
        bench
            .children()
            .iter()
            .map(|child| child.pid)
            .collect::<Vec<_>>(),
        [pid]
    );
    let running = bench.start(&[]);
    let report = bench.settled();
    assert_eq!(report.child.pid, Some(pid));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    assert_eq!(bench.children(), []);
    bench.assert_runs(&["one"]);
}

#[test]
fn two_supervisors_in_one_checkout_are_refused() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let second = bench.run(&["--child-name", "other"]);
    assert_eq!(second.status.code(), Some(77));
    assert!(text(&second).contains("the checkout"), "{}", text(&second));
}

#[test]
fn without_a_branch_to_follow_the_child_runs_and_status_says_why() {
    let bench = Bench::new();
    bench.git_checkout(&["checkout", "-q", "--detach"]);
    let running = bench.start_and_settle(&[]);
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(
        problem.contains("detached HEAD") && problem.contains("--branch"),
        "{problem}"
    );
    let pid = report.child.pid;
    running.crash();
    bench.git_checkout(&["checkout", "-q", "-b", "loose"]);
    let running = bench.start(&[]);
    let report = bench.update();
    assert!(
        report
            .update
            .problem
            .unwrap()
            .contains("a branch without upstream")
    );
    assert_eq!(report.child.pid, pid);
    running.crash();
    let _running = bench.start(&["--branch", "main"]);
    let commit = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
}

#[test]
fn a_rewritten_branch_is_followed_or_refused_as_told() {
    let bench = Bench::new();
    bench.release("two", "");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&["--on-rewrite", "refuse"]);
    bench.git_work(&["reset", "-q", "--hard", "HEAD~1"]);
    let rewritten = bench.release("other two", "");
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(problem.contains("was rewritten"), "{problem}");
    running.crash();
    let _running = bench.start(&[]);
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, rewritten);
    // Nothing of the old branch was taken for a change of the operator's.
    assert_eq!(report.child.release, Some(rewritten));
}

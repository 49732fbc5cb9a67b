//! A machine in trouble: things removed by hand, a full disk, builds that misbehave. One good child
//! runs throughout, and all comes right when the trouble is over.

#![expect(
    clippy::disallowed_methods,
    reason = "a test that runs itself tells itself so in the environment"
)]

use std::{fs, io::Write, path::PathBuf};

use crate::workbench::{Bench, git, text, write};
use nix::sys::signal::Signal;
use supervisor::control::Request;

#[test]
fn a_checkout_that_is_cloned_anew_is_followed_again() {
    let bench = Bench::new();
    // What is built is ours alone then, on top of what the checkout had.
    write(&bench.checkout().join("src/mine.rs"), "//! Mine.\n");
    bench.git_checkout(&["add", "-A"]);
    bench.git_checkout(&["commit", "-qm", "mine"]);
    let _running = bench.start_and_settle(&[]);
    fs::remove_dir_all(bench.checkout()).unwrap();
    bench.git_work(&["reset", "-q", "--hard"]);
    bench.git_work(&["commit", "-q", "--amend", "-m", "another one"]);
    let two = bench.release("two", "");
    git(bench.path(), &["clone", "-q", "remote.git", "checkout"]);
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().release, two);
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn what_is_removed_from_the_state_directory_comes_back() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&["--no-update"]);
    let first = bench.report().unwrap().child;
    bench.assert_runs(&["one"]);
    // The release of the running child, so that it can't be started again.
    fs::remove_dir_all(bench.home.releases()).unwrap();
    let pid = nix::unistd::Pid::from_raw(first.pid.unwrap().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    let report = bench.until("it runs again", |report| {
        report.child.state == "running" && report.child.pid != first.pid
    });
    assert_eq!(report.child.release, first.release);
    running.crash();
    // The link, our clone, and a clone of which only half is left.
    fs::remove_file(bench.home.current()).unwrap();
    fs::remove_dir_all(bench.home.source()).unwrap();
    let running = bench.start_and_settle(&[]);
    let current = fs::canonicalize(bench.home.current()).unwrap();
    assert!(current.ends_with(first.release.unwrap()));
    let two = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    let objects = bench.home.source().join(".git/objects");
    fs::remove_dir_all(objects).unwrap();
    let three = bench.release("three", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
    running.crash();
    bench.assert_runs(&["one", "one", "two", "three"]);
}

#[test]
fn the_state_of_a_newer_supervisor_is_left_alone() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    let pid = bench.report().unwrap().child.pid.unwrap();
    running.crash();
    let newer = "{\"format\": 99}\n";
    write(&bench.home.journal(), newer);
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output);
    assert!(said.contains("written by a newer supervisor"), "{said}");
    assert_eq!(fs::read_to_string(bench.home.journal()).unwrap(), newer);
    assert_eq!(bench.children()[0].pid, pid);
}

/// Makes a commit whose build script does something, and returns the commit.
fn builds_with(bench: &Bench, version: &str, script: &str) -> String {
    let main = format!(
        "fn main() {{\n    println!(\"cargo:rerun-if-changed=none\");\n    \
         std::process::Command::new(\"sh\").args([\"-c\", {script:?}]).status().unwrap();\n}}\n"
    );
    bench.write("build.rs", &main);
    bench.release(version, "")
}

#[test]
fn a_build_that_misbehaves_is_ended_and_nothing_of_it_is_left() {
    let bench = Bench::new();
    let flags = [
        "--build-timeout",
        "10s",
        "--build-path",
        &bench.build_folder(),
    ];
    let running = bench.start_and_settle(&flags);
    let first = bench.report().unwrap().child.pid;
    let trace = PathBuf::from(bench.build_folder()).join("trace");
    let shown = trace.display();
    // It hangs, with a helper in the background.
    builds_with(
        &bench,
        "two",
        &format!("touch {shown}.log; tail -f {shown}.log & touch {shown}; wait"),
    );
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    // A machine that is busy gets there in the second attempt.
    bench.wait("the build hangs", || trace.exists().then_some(()));
    let report = bench.until("it is given up", |report| {
        let given_up = |problem: &String| problem.contains("took longer than 10 s");
        report.update.phase == "idle" && report.update.problem.as_ref().is_some_and(given_up)
    });
    assert!(report.update.quarantine.is_empty());
    // Its process id is one of its own namespace.
    let mark = shown.to_string();
    let is_helper = |process: fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&mark)
    };
    bench.wait("the helper is gone", || {
        let mut processes = fs::read_dir("/proc").unwrap().flatten();
        (!processes.any(is_helper)).then_some(())
    });
    // It kills cargo, whose child the build script is.
    let script = "kill -9 $(ps -o ppid= -p $PPID)";
    builds_with(&bench, "three", script);
    running.crash();
    let _running = bench.start(&[]);
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("the build failed"));
    assert!(report.update.quarantine.is_empty());
    // It fills the log.
    let script = "yes cargo:warning=$(printf %0500d 0) | head -n 60000; exit 0";
    let commit = builds_with(&bench, "four", script);
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, commit);
    let log = fs::metadata(bench.home.path().join("logs/app-build.log")).unwrap();
    assert!(log.len() <= 17 << 20, "{}", log.len());
    assert_ne!(report.child.pid, first);
    bench.assert_runs(&["one", "four"]);
}

/// Runs a test of this program in a namespace where it may mount file systems; returns whether we
/// are in there.
fn in_namespace(test: &str) -> bool {
    const INSIDE: &str = "SUPERVISOR_TEST_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let enter = || {
        let mut command = shared::process::blocking_command("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    if !enter()
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        e2e::skip("no file system may be mounted here (unshare --user --mount)");
        return false;
    }
    let output = enter()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("trouble::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    false
}

/// A small file system for all state, with a ballast that fills it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(bench: &Bench) -> Self {
        let folder = bench.path().join("state");
        fs::create_dir_all(&folder).unwrap();
        let disk = Self(folder);
        disk.run(&["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs"]);
        disk
    }

    fn run(&self, line: &[&str]) {
        let output = shared::process::blocking_command(line[0])
            .args(&line[1..])
            .arg(&self.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves so many bytes free.
    fn leave(&self, bytes: u64) {
        let mut ballast = fs::File::options()
            .append(true)
            .create(true)
            .open(self.ballast())
            .unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.saturating_sub(bytes)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = shared::process::blocking_command("umount")
            .arg("--lazy")
            .arg(&self.0)
            .output();
    }
}

#[test]
fn a_full_disk_stops_no_child_and_blames_no_commit() {
    if !in_namespace("a_full_disk_stops_no_child_and_blames_no_commit") {
        return;
    }
    let bench = Bench::new();
    let disk = SmallDisk::mount(&bench);
    let mut running = bench.start_and_settle(&[]);
    let first = bench.report().unwrap();
    let commit = bench.release("two", "");
    let mut refused = 0;
    // The less there is, the earlier the step that fails: journal, fetch, checkout, build, install.
    for bytes in [0, 4 << 10, 32 << 10, 128 << 10, 512 << 10, 2 << 20, 6 << 20] {
        disk.leave(bytes);
        bench
            .ask(&Request::Update {
                force: false,
                local: false,
            })
            .unwrap();
        // Where even the journal can't be written, the update stands still until it can.
        let report = bench.until("the update has ended or stands still", |report| {
            let stands = |problem: &String| problem.contains("could not write");
            report.update.phase == "idle" || report.update.problem.as_ref().is_some_and(stands)
        });
        assert!(report.update.quarantine.is_empty(), "{bytes}: {report:#?}");
        if report
            .update
            .accepted
            .as_ref()
            .is_some_and(|version| version.commit == commit)
        {
            break;
        }
        let problem = report.update.problem.unwrap();
        println!("{bytes} bytes left: {problem}");
        refused += 1;
        assert_eq!(report.child.pid, first.child.pid);
        if bytes == 0 {
            // Nor does it keep the next supervisor from taking over.
            running.crash();
            running = bench.start(&[]);
            let report = bench.until("it runs", |report| report.child.state == "running");
            assert_eq!(report.child.pid, first.child.pid);
        }
    }
    assert!(refused >= 3, "the disk was never full");
    fs::remove_file(disk.ballast()).unwrap();
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
    bench.assert_runs(&["one", "two"]);
    bench.ask(&Request::Stop).unwrap();
    assert!(running.ended().success());
    disk.run(&["mount", "-o", "remount,ro"]);
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output).contains("--state-dir"), "{}", text(&output));
}

#[test]
fn output_that_can_not_be_written_stops_nothing() {
    let bench = Bench::new();
    let running = bench.start_unheard(&["--echo", "always"]);
    bench.settled();
    let two = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn lock_files_that_a_killed_worker_left_in_our_clone_are_removed() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let git = bench.home.source().join(".git");
    for lock in [
        "index.lock",
        "HEAD.lock",
        "config.lock",
        "refs/supervisor/upstream.lock",
        "refs/supervisor/have/0.lock",
    ] {
        write(&git.join(lock), "");
    }
    let two = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, two);
    // The steps of an update log where the supervisor does.
    let log = bench.supervisor_log();
    assert!(log.contains("a stale file in our clone"), "{log}");
}

#[test]
fn output_that_nobody_reads_stops_nothing() {
    let bench = Bench::new();
    let (running, _unread) = bench.start_unread(&["--echo", "always", "--log-level", "debug"]);
    bench.settled();
    let two = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().code(), Some(0));
    bench.assert_runs(&["one", "two"]);
}

#[test]
fn a_clone_that_fails_for_any_reason_of_its_own_is_made_anew() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&["--hold-off", "0"]);
    let git = bench.home.source().join(".git");
    for (version, file) in [("two", "HEAD"), ("three", "index"), ("four", "config")] {
        write(&git.join(file), "\u{1}nonsense\n");
        let commit = bench.release(version, "");
        bench.ask(&Request::Update {
            force: false,
            local: false,
        });
        // Where it broke before the build, the commit itself has to be fetched again.
        let report = bench.until("the commit is accepted", |report| {
            let accepted = report.update.accepted.as_ref();
            accepted.is_some_and(|version| version.commit == commit)
        });
        assert_eq!(report.update.problem, None, "{file}");
    }
}

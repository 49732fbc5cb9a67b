//! Killed at each effect of an update, the next supervisor goes on: one child, old or new, and
//! then the update completes.
//!
//! The bullet comes from inside the step that the effect has started (a build script, a smoke
//! test, a hook, the other end of a fetch), or when a file of it appears, so it always hits while
//! that effect is under way.

#![expect(
    clippy::disallowed_methods,
    reason = "what stands in for ssh comes before the rest of PATH"
)]

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

use crate::workbench::{Bench, Running, write};
use supervisor::control::Request;

/// A shell line that kills the supervisor once.
fn bullet(bench: &Bench) -> String {
    let (pid, fired) = (bench.path().join("pid"), bench.path().join("fired"));
    format!(
        "if ! test -e {1}; then touch {1}; kill -9 $(cat {0}); sleep 60; fi",
        pid.display(),
        fired.display()
    )
}

fn load(bench: &Bench, running: &Running<'_>) {
    write(&bench.path().join("pid"), &running.pid().to_string());
}

/// Runs an update that is shot at, starts again, and checks that it completes with one child.
fn survive(bench: &Bench, flags: &[&str], release: impl FnOnce() -> String) {
    let running = bench.start_and_settle(flags);
    load(bench, &running);
    let commit = release();
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    assert!(!running.ended().success());
    assert!(bench.path().join("fired").exists());
    assert!(bench.children().len() <= 1, "{:?}", bench.children());
    let _running = bench.start(flags);
    let report = bench.update();
    assert_eq!(bench.children().len(), 1);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
    bench.wait("the new version says that it was started", || {
        (bench.runs().last()? == "two").then_some(())
    });
    assert!(
        fs::canonicalize(bench.home.current())
            .unwrap()
            .ends_with(&commit)
    );
}

#[test]
fn while_building() {
    let bench = Bench::new();
    let script = format!(
        "fn main() {{ std::process::Command::new(\"sh\").args([\"-c\", {:?}]).status().unwrap(); }}\n",
        bullet(&bench)
    );
    // The script kills the supervisor, which a build can't.
    survive(&bench, &["--build-sandbox", "off"], || {
        bench.write("build.rs", &script);
        bench.release("two", "")
    });
}

#[test]
fn while_testing() {
    let bench = Bench::new();
    let main = fs::read_to_string(bench.work().join("src/main.rs")).unwrap();
    let check = format!(
        "Some(\"check\") => {{ Command::new(\"sh\").args([\"-c\", {:?}]).status().unwrap(); return; }}",
        bullet(&bench)
    );
    survive(&bench, &[], || {
        bench.write(
            "src/main.rs",
            &main.replace("Some(\"check\") => return,", &check),
        );
        bench.release("two", "")
    });
}

#[test]
fn while_switching() {
    let bench = Bench::new();
    // The first version is switched to as well, before the gun is loaded.
    let hook = format!(
        "test ! -e {} || {{ {}; }}",
        bench.path().join("pid").display(),
        bullet(&bench)
    );
    survive(&bench, &["--pre-update", &hook], || {
        bench.release("two", "")
    });
}

#[test]
fn while_accepting() {
    let bench = Bench::new();
    let hook = format!(
        "test ! -e {} || {{ {}; }}",
        bench.path().join("pid").display(),
        bullet(&bench)
    );
    survive(&bench, &["--post-update", &hook], || {
        bench.release("two", "")
    });
}

#[test]
fn while_waiting_for_a_safe_point() {
    let bench = Bench::new();
    bench.release("one", "busy");
    bench.git_checkout(&["pull", "-q"]);
    let running = bench.start_and_settle(&[]);
    let commit = bench.release("two", "");
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    bench.until("it waits", |report| report.update.phase == "waiting");
    let pid = bench.report().unwrap().child.pid;
    running.crash();
    let _running = bench.start(&[]);
    bench.wait("it can be asked", || {
        bench.ask(&Request::Update {
            force: false,
            local: false,
        })
    });
    let report = bench.until("it waits again", |report| report.update.phase == "waiting");
    assert_eq!(report.child.pid, pid);
    write(&bench.home.path().join("safe"), "");
    assert_eq!(bench.settled().update.accepted.unwrap().commit, commit);
}

#[test]
fn on_probation() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&["--probation", "1h"]);
    // It has said READY=1 to the supervisor that is killed, and goes on talking to the next.
    let commit = bench.release("two", "talkative");
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    let report = bench.until("it is on probation", |report| {
        report.update.phase == "probation" && report.child.state == "running"
    });
    let pid = report.child.pid;
    running.crash();
    let _running = bench.start(&["--probation", "100ms", "--ready-timeout", "500ms"]);
    let report = bench.settled();
    // The new version was adopted, not started again.
    assert_eq!(report.child.pid, pid);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
}

#[test]
fn while_rolling_back() {
    let bench = Bench::new();
    let hook = format!(
        "test ! -e {} || {{ {}; }}",
        bench.path().join("pid").display(),
        bullet(&bench)
    );
    let flags = ["--on-failure", hook.as_str()];
    let running = bench.start_and_settle(&flags);
    load(&bench, &running);
    let first = bench.report().unwrap().child.release;
    let bad = bench.release("two", "crash");
    bench
        .ask(&Request::Update {
            force: false,
            local: false,
        })
        .unwrap();
    assert!(!running.ended().success());
    let _running = bench.start(&flags);
    let report = bench.update();
    assert_eq!(report.child.release, first);
    assert!(report.update.quarantine.contains_key(&bad));
    assert_eq!(bench.children().len(), 1);
}

/// Returns what libgit2 calls what it has not finished.
fn unfinished(bench: &Bench) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![bench.home.source().join(".git")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            let kind = Path::new(&name).extension();
            if kind.is_some_and(|kind| kind == "lock") || name.contains("_git2_") {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn while_a_pack_arrives() {
    let bench = Bench::new();
    let bin = bench.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // Where the pack is cut: past the list of references.
    let ssh = format!(
        "#!/bin/sh\nserve() {{ git-upload-pack {0}; }}\n\
         if test -e {1} && ! test -e {2}; then serve | {{ dd bs=1 count=40000 2>/dev/null; touch {2}; \
         kill -9 $(cat {1}); sleep 60; }}; else serve; fi\n",
        bench.path().join("remote.git").display(),
        bench.path().join("pid").display(),
        bench.path().join("fired").display()
    );
    write(&bin.join("ssh"), &ssh);
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = OsString::from(&bin);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let environment = [("PATH", path.as_os_str())];
    let flags = ["--remote", "ssh://nowhere.invalid/app", "--branch", "main"];
    let running = bench.start_in(&environment, &flags);
    bench.settled();
    load(&bench, &running);
    // What does not compress to less than what comes through.
    let mut state = 1_u64;
    let noise: String = (0..200_000)
        .map(|_| {
            // A linear congruential generator: any noise will do.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + ((state >> 33) % 26) as u8)
        })
        .collect();
    bench.write("noise.txt", &noise);
    let two = bench.release("two", "");
    bench.ask(&Request::Update {
        force: false,
        local: false,
    });
    assert!(!running.ended().success());
    assert!(bench.path().join("fired").exists());
    let _running = bench.start_in(&environment, &flags);
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, two);
    assert_eq!(unfinished(&bench), [""; 0]);
}

#[test]
fn while_our_clone_is_checked_out() {
    const FILES: usize = 4000;
    let bench = Bench::new();
    let mut running = bench.start_and_settle(&[]);
    // A machine that is quick may be done before it is hit.
    for round in 0..20 {
        for number in 0..FILES {
            bench.write(&format!("many/{round}/{number:04}.txt"), "x\n");
        }
        let commit = bench.release(&format!("many {round}"), "");
        bench.ask(&Request::Update {
            force: false,
            local: false,
        });
        let file = |number: usize| {
            let name = format!("many/{round}/{number:04}.txt");
            bench.home.source().join(name)
        };
        bench.wait("some files are there", || {
            file(FILES / 4).exists().then_some(())
        });
        running.crash();
        let hit = !file(FILES - 1).exists();
        running = bench.start(&[]);
        let report = bench.update();
        assert_eq!(report.update.accepted.unwrap().commit, commit);
        assert!(file(FILES - 1).exists());
        assert_eq!(unfinished(&bench), [""; 0]);
        assert_eq!(bench.children().len(), 1);
        if hit {
            return;
        }
    }
    panic!("never hit while it was checked out");
}

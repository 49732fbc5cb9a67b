//! Whose fault a failed build is: the commit is blamed only with proof.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt};

use supervisor::report::Report;

use crate::workbench::{Bench, text, write};

/// What cargo reads above our clone, wherever that is in the bench.
fn cargo_config(bench: &Bench, text: &str) {
    write(&bench.path().join(".cargo/config.toml"), text);
}

const NO_LINKER: &str = "[target.'cfg(all())']\nlinker = \"/nonexistent/cc\"\n";

#[test]
fn a_machine_without_a_linker_is_not_the_commits_fault() {
    let bench = Bench::new();
    cargo_config(&bench, NO_LINKER);
    let _running = bench.start(&[]);
    let report = bench.until("the build fails", |report| {
        report.update.problem.is_some() && report.update.phase == "idle"
    });
    let problem = report.update.problem.unwrap();
    assert!(
        problem.contains("/nonexistent/cc") && problem.contains("`supervisor update`"),
        "{problem}"
    );
    assert!(report.update.quarantine.is_empty());
    let doctor = ["doctor", "--offline", "--min-disk", "0"];
    let ill = text(&bench.command(&doctor));
    assert!(ill.contains("does nothing can't be built"), "{ill}");
    cargo_config(&bench, "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    let sound = bench.command(&doctor);
    assert!(sound.status.success(), "{}", text(&sound));
    bench.assert_runs(&["one"]);
}

#[test]
fn doctor_misses_the_compiler_of_cuda_where_features_want_it() {
    let bench = Bench::new();
    let doctor = |nvcc: &str, features: &str| {
        let home = bench.path().join("cuda");
        write(&home.join("bin/nvcc"), &format!("#!/bin/sh\n{nvcc}\n"));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(home.join("bin/nvcc"), mode).unwrap();
        let line = ["doctor", "--offline", "--min-disk", "0", "--features"];
        let line = [&line[..], &[features]].concat();
        let output = bench.command_in(&[("CUDA_HOME", home.as_os_str())], &line);
        (output.status.success(), text(&output))
    };
    let (well, said) = doctor("exit 0", "app/cuda");
    assert!(
        well && said.contains("builds and links with app/cuda"),
        "{said}"
    );
    let (well, said) = doctor("echo 'no such architecture' >&2; exit 1", "app/cuda");
    assert!(!well && said.contains("nvcc failed"), "{said}");
    // Whoever does not want it needs none.
    let (well, said) = doctor("exit 1", "app/other");
    assert!(well, "{said}");
}

#[test]
fn a_compiler_that_dies_or_is_too_old_is_tried_again() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let wrapper = bench.path().join("wrapper");
    let script =
        "#!/bin/sh\ncase \"$*\" in *'--crate-name app'*) kill -SEGV $$;; esac\nexec \"$@\"\n";
    write(&wrapper, script);
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let wrapper = wrapper.display().to_string();
    cargo_config(&bench, &format!("[build]\nrustc-wrapper = {wrapper:?}\n"));
    let two = bench.release("two", "");
    let report = bench.update();
    assert!(report.update.problem.unwrap().contains("the build failed"));
    assert!(report.update.quarantine.is_empty());
    cargo_config(&bench, "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);

    let manifest = fs::read_to_string(bench.work().join("Cargo.toml")).unwrap();
    let newer = "edition = \"2021\"\nrust-version = \"1.999\"";
    let manifest = manifest.replace("edition = \"2021\"", newer);
    bench.write("Cargo.toml", &manifest);
    bench.release("three", "");
    let report = bench.update();
    let problem = report.update.problem.unwrap();
    assert!(
        problem.contains("1.999") && problem.contains("rustup update"),
        "{problem}"
    );
    assert!(report.update.quarantine.is_empty());
}

#[test]
fn what_is_built_is_where_cargo_says_it_is() {
    let bench = Bench::new();
    let running = bench.start_and_settle(&[]);
    cargo_config(&bench, "[build]\ntarget = \"host-tuple\"\n");
    let two = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, two);
    running.crash();
    cargo_config(&bench, "");
    let target = [("CARGO_BUILD_TARGET", OsStr::new("host-tuple"))];
    let _running = bench.start_in(&target, &[]);
    let three = bench.release("three", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
    bench.assert_runs(&["one", "two", "three"]);
}

#[test]
fn documentation_on_top_of_a_bad_commit_does_not_try_it_again_and_a_fix_does() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    bench.release("two", "crash");
    bench.update();
    bench.write("README.md", "two\n");
    bench.commit("docs");
    bench.push();
    let problem = bench.update().update.problem.unwrap();
    assert!(
        problem.contains("builds the same as") && problem.contains("--force"),
        "{problem}"
    );
    let check = bench.command(&["check"]);
    assert_eq!(check.status.code(), Some(3));
    assert!(text(&check).contains("is quarantined"), "{}", text(&check));
    bench.assert_runs(&["one", "two", "one"]);
    let three = bench.release("three", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
}

/// Waits until the remote was asked by a poll that began after this.
fn polled(bench: &Bench) -> Report {
    let mut report = bench.report().unwrap();
    for _ in 0..2 {
        let before = report.update.polled_at;
        report = bench.until("it polls", |report| report.update.polled_at != before);
    }
    bench.until("the poll has ended", |report| report.update.phase == "idle")
}

#[test]
fn a_rollback_by_the_operator_holds_until_it_is_lifted() {
    let bench = Bench::new();
    let flags = ["--interval", "200ms", "--hold-off", "0"];
    let running = bench.start_and_settle(&flags);
    let two = bench.release("two", "");
    let accepted = |commit: &str| {
        bench.until("it is accepted", |report| {
            let accepted = report.update.accepted.as_ref();
            let idle = report.update.phase == "idle";
            idle && accepted.is_some_and(|version| version.commit == commit)
        })
    };
    accepted(&two);
    bench.wait("it is between two polls", || {
        let rollback = bench.command(&["rollback"]);
        rollback.status.success().then_some(())
    });
    bench.settled();
    bench.write("README.md", "two\n");
    bench.commit("docs");
    bench.push();
    polled(&bench);
    let three = bench.release("three", "");
    polled(&bench);
    running.crash();
    let _running = bench.start(&flags);
    bench.settled();
    let problem = polled(&bench).update.problem.unwrap();
    assert!(problem.contains("since you rolled back"), "{problem}");
    bench.assert_runs(&["one", "two", "one"]);
    assert!(bench.command(&["update"]).status.success());
    accepted(&three);
    bench.assert_runs(&["one", "two", "one", "three"]);
}

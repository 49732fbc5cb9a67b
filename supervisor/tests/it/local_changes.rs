//! What the operator changed in the checkout goes into each new version, or refuses it by name.

use std::fs;

use crate::workbench::{Bench, write};
use supervisor::control::Request;

#[test]
fn commits_and_edits_are_carried_onto_each_new_version() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let main = fs::read_to_string(bench.checkout().join("src/main.rs")).unwrap();
    write(
        &bench.checkout().join("src/main.rs"),
        &main.replace("\"running {", "\"patched {"),
    );
    write(&bench.checkout().join("NOTES"), "mine\n");
    bench.git_checkout(&["add", "NOTES"]);
    bench.git_checkout(&["commit", "-q", "-m", "notes", "NOTES"]);
    let before = bench.git_checkout(&["status", "--porcelain"]);
    for version in ["two", "three"] {
        let commit = bench.release(version, "");
        let report = bench.update();
        assert_eq!(
            report.update.accepted.as_ref().unwrap().commit,
            commit,
            "{report:#?}"
        );
        let release = report.child.release.unwrap();
        assert!(
            release.starts_with(&commit) && release.contains("-local-"),
            "{release}"
        );
        bench.child_says(&format!("patched {version}"));
    }
    assert_eq!(bench.git_checkout(&["status", "--porcelain"]), before);
    assert_eq!(bench.git_checkout(&["log", "-1", "--format=%s"]), "notes");
    // The same edits on the same commit are not news, even when asked for by force.
    bench
        .ask(&Request::Update {
            force: true,
            local: false,
        })
        .unwrap();
    bench.settled();
    bench.assert_runs(&["one", "two", "three"]);
}

#[test]
fn new_edits_alone_are_built_only_when_forced() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    let main = fs::read_to_string(bench.checkout().join("src/main.rs")).unwrap();
    write(
        &bench.checkout().join("src/main.rs"),
        &main.replace("\"running {", "\"patched {"),
    );
    bench.update();
    bench.assert_runs(&["one"]);
    bench
        .ask(&Request::Update {
            force: true,
            local: false,
        })
        .unwrap();
    bench.settled();
    bench.assert_runs(&["one", "one"]);
    bench.child_says("patched one");
}

#[test]
fn a_change_that_upstream_took_over_is_no_longer_local() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    write(&bench.checkout().join("README.md"), "two\n");
    bench.git_checkout(&["commit", "-qam", "my wording"]);
    bench.write("README.md", "two\n");
    let commit = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.child.release, Some(commit));
}

#[test]
fn a_shallow_checkout_is_as_good() {
    let bench = Bench::new();
    bench.release("two", "");
    bench.release("three", "");
    fs::remove_dir_all(bench.checkout()).unwrap();
    let remote = format!("file://{}", bench.path().join("remote.git").display());
    crate::workbench::git(
        bench.path(),
        &["clone", "-q", "--depth", "1", &remote, "checkout"],
    );
    let _running = bench.start_and_settle(&[]);
    bench.assert_runs(&["three"]);
    let commit = bench.release("four", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
}

#[test]
fn submodules_come_along() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    bench.add_submodule();
    bench.release("two", "");
    bench.update();
    bench.child_says("from a submodule");
}

#[test]
fn a_commit_that_upstream_took_back_does_not_return_as_a_local_one() {
    let bench = Bench::new();
    let _running = bench.start_and_settle(&[]);
    bench.release("two", "");
    bench.update();
    for version in ["three", "four"] {
        bench.git_work(&["reset", "-q", "--hard", "HEAD~1"]);
        let commit = bench.release(version, "");
        let accepted = bench.update().update.accepted.unwrap();
        assert_eq!((&accepted.commit, &accepted.release), (&commit, &commit));
        assert_eq!(accepted.local, []);
    }
    bench.assert_runs(&["one", "two", "three", "four"]);
}

#[test]
fn a_submodule_that_has_moved_is_found_where_it_is_now() {
    let bench = Bench::new();
    bench.add_submodule();
    bench.release("one", "");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start_and_settle(&[]);
    let (old, new) = (bench.path().join("part"), bench.path().join("moved"));
    fs::rename(&old, &new).unwrap();
    write(
        &new.join("word.rs"),
        "pub const WORD: &str = \"from elsewhere\";\n",
    );
    crate::workbench::git(&new, &["commit", "-qam", "elsewhere"]);
    let modules = fs::read_to_string(bench.work().join(".gitmodules")).unwrap();
    bench.write(".gitmodules", &modules.replace("/part", "/moved"));
    let part = bench.work().join("part");
    let url = new.display().to_string();
    crate::workbench::git(&part, &["pull", "-q", &url, "main"]);
    let two = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, two);
    bench.child_says("from elsewhere");
}

#[test]
fn what_git_calls_unchanged_is_no_local_change() {
    let bench = Bench::new();
    bench.write("docs/notes.md", "notes\n");
    bench.release("one", "");
    bench.git_checkout(&["pull", "-q"]);
    bench.git_checkout(&["sparse-checkout", "set", "--sparse-index", "src"]);
    assert!(!bench.checkout().join("docs").exists());
    bench.git_checkout(&["config", "core.autocrlf", "true"]);
    let main = bench.checkout().join("src/main.rs");
    let text = fs::read_to_string(&main).unwrap();
    write(&main, &text.replace('\n', "\r\n"));
    let _running = bench.start_and_settle(&[]);
    let two = bench.release("two", "");
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.child.release, Some(two));
    // An edit among the unchanged lines is carried along all the same.
    write(
        &main,
        &text
            .replace("\"running {", "\"patched {")
            .replace('\n', "\r\n"),
    );
    bench.release("three", "");
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().local.len(), 1);
    bench.child_says("patched three");
}

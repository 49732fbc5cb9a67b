//! With signatures required, nothing unverified is ever built.

use std::path::PathBuf;

use crate::workbench::{Bench, text, write};
use git2::{Oid, Repository};
use sha2::{Digest, Sha256};
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};

fn key(bench: &Bench, name: &str) -> PrivateKey {
    // It need not be secret, only different for each name and test.
    let seed = format!("{name} {}", bench.path().display());
    let bytes: [u8; 32] = Sha256::digest(seed.as_bytes()).into();
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&bytes);
    let key = PrivateKey::new(pair.into(), name).unwrap();
    assert_eq!(key.algorithm(), Algorithm::Ed25519);
    key
}

/// Replaces the newest commit by the same one, signed in a namespace.
fn sign_in(bench: &Bench, key: &PrivateKey, namespace: &str) -> String {
    let repository = Repository::open(bench.work()).unwrap();
    let head = repository.head().unwrap().peel_to_commit().unwrap();
    let objects = repository.odb().unwrap();
    let object = objects.read(head.id()).unwrap();
    let content = std::str::from_utf8(object.data()).unwrap();
    let signature = key
        .sign(namespace, HashAlg::Sha512, content.as_bytes())
        .unwrap();
    let pem = signature.to_pem(LineEnding::LF).unwrap();
    let oid: Oid = repository
        .commit_signed(content, pem.trim_end(), None)
        .unwrap();
    repository
        .reference("refs/heads/main", oid, true, "sign")
        .unwrap();
    bench.push();
    oid.to_string()
}

fn sign(bench: &Bench, key: &PrivateKey) -> String {
    sign_in(bench, key, "git")
}

fn allow(bench: &Bench, lines: &[String]) -> PathBuf {
    let path = bench.path().join("allowed_signers");
    write(&path, &(lines.join("\n") + "\n"));
    path
}

fn line(name: &str, options: &str, key: &PrivateKey) -> String {
    format!(
        "{name} {options} {}",
        key.public_key().to_openssh().unwrap()
    )
}

/// A bench whose first commit is signed by the allowed key, and the flag that requires that.
fn signed_bench() -> (Bench, PrivateKey, String) {
    let bench = Bench::new();
    let alice = key(&bench, "alice");
    sign(&bench, &alice);
    bench.git_checkout(&["pull", "-q", "--rebase"]);
    bench.git_checkout(&["reset", "-q", "--hard", "origin/main"]);
    let file = allow(
        &bench,
        &[line("alice@example.org", "namespaces=\"git\"", &alice)],
    );
    (bench, alice, file.display().to_string())
}

fn refused(bench: &Bench, because: &str) {
    let before = bench.report().unwrap();
    let report = bench.update();
    let problem = report.update.problem.unwrap_or_default();
    assert!(problem.contains(because), "{because:?} in {problem:?}");
    assert_eq!(report.child.pid, before.child.pid);
    assert_eq!(report.update.accepted, before.update.accepted);
    let build = bench.home.path().join("logs/app-build.log");
    let count = std::fs::read_dir(bench.home.releases()).unwrap().count();
    assert!(build.exists() && count <= 2, "nothing was built");
}

#[test]
fn only_commits_of_allowed_signers_are_taken() {
    let (bench, alice, signers) = signed_bench();
    let _running = bench.start_and_settle(&["--require-signed", &signers]);
    let report = bench.report().unwrap();
    assert_eq!(
        report.update.accepted.unwrap().signer.as_deref(),
        Some("alice@example.org")
    );

    bench.release("two", "");
    refused(&bench, "is not signed");
    sign(&bench, &key(&bench, "mallory"));
    refused(&bench, "who is not an allowed signer");
    bench.release("three", "");
    sign_in(&bench, &alice, "file");
    refused(&bench, "signature of alice@example.org that is wrong");

    bench.release("four", "");
    let good = sign(&bench, &alice);
    let report = bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, good);
    bench.assert_runs(&["one", "four"]);
}

#[test]
fn a_signed_old_commit_is_no_way_back() {
    let (bench, alice, signers) = signed_bench();
    let _running = bench.start_and_settle(&["--require-signed", &signers]);
    bench.release("two", "");
    sign(&bench, &alice);
    bench.update();
    bench.git_work(&["reset", "-q", "--hard", "HEAD~1"]);
    bench.push();
    refused(&bench, "went back to an older commit");
    bench.release("other", "");
    sign(&bench, &alice);
    refused(&bench, "was rewritten");
}

#[test]
fn every_commit_must_be_signed_when_told_so() {
    let (bench, alice, signers) = signed_bench();
    let _running = bench.start_and_settle(&["--require-signed", &signers, "--require-signed-all"]);
    bench.release("two", "");
    bench.release("three", "");
    sign(&bench, &alice);
    refused(&bench, "is not signed");
}

#[test]
fn a_key_that_has_expired_signs_nothing_new() {
    let (bench, alice, signers) = signed_bench();
    let _running = bench.start_and_settle(&["--require-signed", &signers]);
    allow(
        &bench,
        &[line(
            "alice@example.org",
            "valid-before=\"20200101Z\"",
            &alice,
        )],
    );
    bench.release("two", "");
    sign(&bench, &alice);
    refused(&bench, "outside the key's validity");
    std::fs::remove_file(&signers).unwrap();
    refused(&bench, "no such file");
}

#[test]
fn an_unsigned_checkout_is_not_even_built() {
    let bench = Bench::new();
    let alice = key(&bench, "alice");
    let file = allow(&bench, &[line("alice@example.org", "", &alice)]);
    let _running = bench.start(&["--require-signed", file.to_str().unwrap()]);
    let report = bench.until("it is refused", |report| report.update.problem.is_some());
    assert!(report.update.problem.unwrap().contains("is not signed"));
    assert_eq!(report.child.state, "down");
    assert!(!bench.home.target().exists());
    assert!(!bench.home.source().join("src").exists());
}

/// Puts the branch back by a commit.
fn take_back(bench: &Bench) {
    bench.git_work(&["reset", "-q", "--hard", "HEAD~1"]);
    bench.push();
}

#[test]
fn an_unsigned_commit_that_upstream_takes_back_does_not_become_the_operators() {
    let (bench, _, signers) = signed_bench();
    let one = bench.git_work(&["rev-parse", "HEAD"]);
    bench.release("two", "");
    bench.git_checkout(&["pull", "-q"]);
    let _running = bench.start(&["--require-signed", &signers]);
    let report = bench.until("it is refused", |report| report.update.problem.is_some());
    assert!(report.update.problem.unwrap().contains("is not signed"));
    // As a checkout that was cloned by address, or with another program, it remembers nothing.
    std::fs::remove_dir_all(bench.checkout().join(".git/logs")).unwrap();
    take_back(&bench);
    bench.git_checkout(&["fetch", "-q"]);
    let accepted = bench.update().update.accepted.unwrap();
    assert_eq!((&accepted.commit, &accepted.release), (&one, &one));
    assert_eq!(accepted.signer.as_deref(), Some("alice@example.org"));
    bench.assert_runs(&["one"]);
}

#[test]
fn what_the_checkout_took_from_upstream_is_not_local_however_early_it_was_taken_back() {
    let (bench, _, signers) = signed_bench();
    let one = bench.git_work(&["rev-parse", "HEAD"]);
    bench.release("two", "");
    bench.git_checkout(&["pull", "-q"]);
    take_back(&bench);
    bench.git_checkout(&["fetch", "-q"]);
    // This supervisor has never seen the branch there.
    let _running = bench.start_and_settle(&["--require-signed", &signers]);
    let accepted = bench.report().unwrap().update.accepted.unwrap();
    assert_eq!((&accepted.commit, &accepted.release), (&one, &one));
    bench.assert_runs(&["one"]);
}

#[test]
fn with_signatures_required_local_changes_run_only_when_asked_for() {
    let (bench, alice, signers) = signed_bench();
    let main = std::fs::read_to_string(bench.checkout().join("src/main.rs")).unwrap();
    let patched = main.replace("\"running {", "\"patched {");
    write(&bench.checkout().join("src/main.rs"), &patched);
    bench.git_checkout(&["commit", "-qam", "my patch"]);
    let _running = bench.start_and_settle(&["--require-signed", &signers]);
    let accepted = bench.report().unwrap().update.accepted.unwrap();
    assert_eq!(accepted.release, accepted.commit);
    assert_eq!(accepted.left_out[0].summary, "my patch");
    let status = text(&bench.command(&["status"]));
    assert!(
        status.contains("my patch (`supervisor update --local` takes it)"),
        "{status}"
    );
    let force = bench.command(&["update", "--force"]);
    assert!(force.status.success());
    bench.settled();
    bench.assert_runs(&["one"]);

    assert!(bench.command(&["update", "--local"]).status.success());
    let report = bench.until("it runs", |report| {
        let accepted = report.update.accepted.as_ref();
        report.update.phase == "idle" && accepted.is_some_and(|version| !version.local.is_empty())
    });
    assert_eq!(report.update.accepted.unwrap().local[0].summary, "my patch");
    bench.child_says("patched one");
    let history = text(&bench.command(&["history", "--json"]));
    let history: Vec<serde_json::Value> = serde_json::from_str(&history).unwrap();
    assert_eq!(history[0]["signer"], "alice@example.org");
    assert_eq!(history.last().unwrap()["signer"], serde_json::Value::Null);
    // What was asked for once is carried on; what is new is not.
    write(&bench.checkout().join("src/more.rs"), "//! More.\n");
    bench.git_checkout(&["add", "-A"]);
    bench.git_checkout(&["commit", "-qm", "another patch"]);
    bench.release("two", "");
    sign(&bench, &alice);
    let accepted = bench.update().update.accepted.unwrap();
    let summaries = |changes: &[supervisor::update::state::LocalChange]| {
        let all = changes.iter().map(|change| change.summary.clone());
        all.collect::<Vec<_>>()
    };
    assert_eq!(summaries(&accepted.local), ["my patch"]);
    assert_eq!(summaries(&accepted.left_out), ["another patch"]);
    bench.child_says("patched two");
}

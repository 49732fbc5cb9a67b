//! With signatures required, nothing unverified is ever built.

use std::path::PathBuf;

use crate::workbench::{Bench, write};
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

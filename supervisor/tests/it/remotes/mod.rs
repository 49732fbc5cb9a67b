//! Remotes as they are: https with an authority, http with a password, ssh with keys and known
//! hosts; and remotes that stall or lie.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo is found by the environment of the test"
)]

mod server;
mod ssh;

use std::fs;

use crate::workbench::Bench;
use server::{Fault, GitServer, tls_file};

/// `me:secret` as HTTP's basic authentication writes it.
const LOGIN: &str = "bWU6c2VjcmV0";

#[test]
fn https_is_fetched_from_those_whom_a_known_authority_vouches_for() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), true, None);
    let url = format!("https://localhost:{}/remote.git", server.port);
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let commit = bench.release("two", "");
    let running = bench.start_and_settle(&flags);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("certificate"), "{problem}");
    running.crash();
    let authority = tls_file("ca.pem");
    let environment = [("SSL_CERT_FILE", authority.as_os_str())];
    let _running = bench.start_in(&environment, &flags);
    let report = bench.update();
    assert_eq!(report.update.problem, None);
    assert_eq!(report.update.accepted.unwrap().commit, commit);
}

#[test]
fn a_private_remote_is_fetched_with_a_credential_helper_or_a_token_in_the_address() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, Some(LOGIN));
    let url = format!("http://127.0.0.1:{}/remote.git", server.port);
    let flags = ["--remote", url.as_str(), "--branch", "main"];
    let two = bench.release("two", "");
    let running = bench.start_and_settle(&flags);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("no login was accepted"), "{problem}");
    let helper = "!f() { echo username=me; echo password=secret; }; f";
    bench.git_checkout(&["config", "credential.helper", helper]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
    running.crash();
    bench.git_checkout(&["config", "--unset", "credential.helper"]);
    let wrong = url.replace("http://", "http://me:hidden@");
    let running = bench.start(&["--remote", &wrong, "--branch", "main"]);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("no login was accepted"), "{problem}");
    assert!(!problem.contains("hidden"), "{problem}");
    running.crash();
    let three = bench.release("three", "");
    let right = url.replace("http://", "http://me:secret@");
    let _running = bench.start(&["--remote", &right, "--branch", "main"]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, three);
}

#[test]
fn a_remote_that_stalls_or_lies_costs_nothing() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, None);
    let url = format!("http://127.0.0.1:{}/remote.git", server.port);
    let flags = [
        "--remote",
        &url,
        "--branch",
        "main",
        "--fetch-timeout",
        "2s",
    ];
    let here = format!("http://127.0.0.1:{}", server.port);
    let _running = bench.start_and_settle(&flags);
    let pid = bench.report().unwrap().child.pid;
    let commit = bench.release("two", "");
    for (fault, said) in [
        (Fault::Stall, "took longer than 2 s"),
        (Fault::Lie, "could not fetch"),
        (Fault::Endless, "has no end"),
        (Fault::Redirect(here), "it redirects too often"),
        (
            Fault::Redirect("file:///etc".into()),
            "it redirects from http to file",
        ),
    ] {
        *server.fault.lock().unwrap() = fault.clone();
        let report = bench.update();
        let problem = report.update.problem.unwrap();
        assert!(problem.contains(said), "{fault:?}: {problem}");
        assert_eq!(report.child.pid, pid);
    }
    *server.fault.lock().unwrap() = Fault::None;
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
}

#[test]
fn a_redirect_is_followed_but_takes_no_login_along() {
    let bench = Bench::new();
    let moved = GitServer::start(bench.path(), false, None);
    let private = GitServer::start(bench.path(), false, Some(LOGIN));
    let target = format!("http://127.0.0.1:{}", private.port);
    *moved.fault.lock().unwrap() = Fault::Redirect(target.clone());
    let url = format!("http://me:secret@127.0.0.1:{}/remote.git", moved.port);
    let two = bench.release("two", "");
    let _running = bench.start_and_settle(&["--remote", &url, "--branch", "main"]);
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("no login was accepted"), "{problem}");
    let helper = "!f() { echo username=me; echo password=secret; }; f";
    bench.git_checkout(&[
        "config",
        &format!("credential.{target}/remote.git.helper"),
        helper,
    ]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
}

#[test]
fn a_redirect_never_leads_from_https_to_http() {
    let bench = Bench::new();
    let open = GitServer::start(bench.path(), false, None);
    let server = GitServer::start(bench.path(), true, None);
    let target = format!("http://127.0.0.1:{}", open.port);
    *server.fault.lock().unwrap() = Fault::Redirect(target);
    let url = format!("https://localhost:{}/remote.git", server.port);
    let authority = tls_file("ca.pem");
    let environment = [("SSL_CERT_FILE", authority.as_os_str())];
    let _running = bench.start_in(&environment, &["--remote", &url, "--branch", "main"]);
    bench.settled();
    bench.release("two", "");
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("from https to http"), "{problem}");
}

#[test]
fn a_proxy_of_gits_configuration_is_asked_and_an_empty_one_is_none() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, None);
    let url = format!("http://127.0.0.1:{}/remote.git", server.port);
    let nobody = format!("http://127.0.0.1:{}", server::free_port());
    bench.git_checkout(&["config", "http.proxy", &nobody]);
    let _running = bench.start_and_settle(&["--remote", &url, "--branch", "main"]);
    let two = bench.release("two", "");
    let problem = bench.update().update.problem.unwrap();
    assert!(problem.contains("refused"), "{problem}");
    bench.git_checkout(&["config", &format!("http.{url}.proxy"), ""]);
    assert_eq!(bench.update().update.accepted.unwrap().commit, two);
}

#[test]
fn a_shallow_clone_with_a_submodule_is_fetched_from_a_private_server() {
    let bench = Bench::new();
    let server = GitServer::start(bench.path(), false, Some(LOGIN));
    fs::remove_dir_all(bench.checkout()).unwrap();
    let url = format!("http://me:secret@127.0.0.1:{}/remote.git", server.port);
    crate::workbench::git(
        bench.path(),
        &["clone", "-q", "--depth", "1", &url, "checkout"],
    );
    let _running = bench.start_and_settle(&[]);
    bench.add_submodule();
    let commit = bench.release("two", "");
    assert_eq!(bench.update().update.accepted.unwrap().commit, commit);
    bench.child_says("from a submodule");
}

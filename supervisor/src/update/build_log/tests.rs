//! What builds say when they fail, and who is blamed for it.

use std::os::unix::process::ExitStatusExt;

use git2::{IndexAddOption, Repository, Signature};

use super::*;
use crate::config::tests::config;

/// A clone with one commit, which holds `main.rs`, and beside it what a build script wrote.
struct SourceClone {
    dir: tempfile::TempDir,
    commit: Committed,
}

impl SourceClone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(dir.path()).unwrap();
        file::write_atomic(&dir.path().join("main.rs"), b"").unwrap();
        let mut index = repository.index().unwrap();
        index
            .add_all(["main.rs"], IndexAddOption::DEFAULT, None)
            .unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let by = Signature::now("t", "t@example.org").unwrap();
        let commit = repository.commit(Some("HEAD"), &by, &by, "one", &tree, &[]);
        file::write_atomic(&dir.path().join("generated.rs"), b"").unwrap();
        let commit = Committed::of(dir.path(), &commit.unwrap().to_string()).unwrap();
        Self { dir, commit }
    }

    /// Returns what is made of a failed build that said this.
    fn fault(&self, json: &[String], text: &str) -> Fault {
        let config = config(self.dir.path());
        let log = BuildLog::open(&config.build_log()).unwrap();
        let mut outcome = Outcome::default();
        for line in json {
            outcome.take(line.as_bytes(), &self.commit, &log);
        }
        log.follow(text.as_bytes());
        outcome.fault(ExitStatus::from_raw(101 << 8), &log, &config)
    }

    fn is_blamed(&self, json: String) -> bool {
        let text = "error: could not compile `app` (bin \"app\") due to 1 previous error\n";
        self.fault(&[json], text).blame == Blame::Code
    }
}

fn span(file: &str, expansion: &str) -> String {
    format!(r#"{{"file_name":{file:?},"is_primary":true,"expansion":{expansion}}}"#)
}

/// A line of cargo's, with an error of the compiler.
fn error(message: &str, code: Option<&str>, spans: &[String]) -> String {
    let code = code.map_or("null".to_owned(), |code| format!(r#"{{"code":{code:?}}}"#));
    format!(
        r#"{{"reason":"compiler-message","message":{{"level":"error","message":{message:?},
            "code":{code},"spans":[{}],"rendered":null}}}}"#,
        spans.join(",")
    )
    .replace('\n', " ")
}

fn made_by(site: &str) -> String {
    let site = if site.is_empty() {
        "null".to_owned()
    } else {
        span(site, "null")
    };
    format!(
        r#"{{"span":{},"def_site_span":{site}}}"#,
        span("main.rs", "null")
    )
}

#[test]
fn a_diagnostic_about_a_line_of_the_commit_is_proof() {
    let source = SourceClone::new();
    let here = || span("main.rs", "null");
    let log = "/rustc/abc/library/core/src/macros/mod.rs";
    for (message, code, span) in [
        ("cannot find value `nonsense`", Some("E0425"), here()),
        ("expected `;`", None, here()),
        // Errors about what macros made of the commit's own code.
        (
            "`X` doesn't implement `Display`",
            Some("E0277"),
            span("main.rs", &made_by(log)),
        ),
        (
            "1 positional argument, but no arguments",
            None,
            span("main.rs", &made_by(log)),
        ),
        (
            "no rules expected `)`",
            None,
            span("main.rs", &made_by("main.rs")),
        ),
        (
            "mismatched types",
            Some("E0308"),
            span("main.rs", &made_by("/c/serde/lib.rs")),
        ),
    ] {
        assert!(source.is_blamed(error(message, code, &[span])), "{message}");
    }
}

#[test]
fn what_may_have_another_cause_is_no_proof() {
    let source = SourceClone::new();
    let here = || span("main.rs", "null");
    for (message, code, spans) in [
        ("linking with `cc` failed: exit status: 1", None, vec![]),
        (
            "cannot find value",
            Some("E0425"),
            vec![span("/c/registry/src/a/lib.rs", "null")],
        ),
        (
            "cannot find value",
            Some("E0425"),
            vec![span("generated.rs", "null")],
        ),
        (
            "cannot find value",
            Some("E0425"),
            vec![span("../state/made.rs", "null")],
        ),
        ("can't find crate for `serde`", Some("E0463"), vec![here()]),
        (
            "couldn't read `x`: Input/output error (os error 5)",
            None,
            vec![here()],
        ),
        (
            "couldn't read `x`: No such file or directory (os error 2)",
            None,
            vec![here()],
        ),
        ("proc macro panicked", None, vec![here()]),
        (
            "environment variable `API` not defined at compile time",
            None,
            vec![span(
                "main.rs",
                &made_by("/rustc/abc/library/core/src/macros/mod.rs"),
            )],
        ),
        // A macro of another crate that asked its database.
        (
            "error communicating with database",
            None,
            vec![span("main.rs", &made_by(""))],
        ),
        (
            "no schema",
            None,
            vec![span("main.rs", &made_by("/c/sqlx/macros.rs"))],
        ),
    ] {
        assert!(!source.is_blamed(error(message, code, &spans)), "{message}");
    }
    let crashed = error("unexpected panic", None, &[here()]);
    let crashed = crashed.replace(
        r#""level":"error""#,
        r#""level":"error: internal compiler error""#,
    );
    assert!(!source.is_blamed(crashed));
}

/// Issues of machines as cargo, rustc, rustup and build scripts tell of them: what the compiler says in
/// JSON, what stands on standard error, and what people are told to do.
const MACHINES: [(&str, &str, &str); 17] = [
    ("linker `cc` not found", "", "install a C compiler"),
    (
        "failed to write `/t/app.rmeta`: No space left on device (os error 28)",
        "",
        "free some space",
    ),
    (
        "failed to write `/t/app.rmeta`: Disk quota exceeded (os error 122)",
        "",
        "raise the quota",
    ),
    (
        "couldn't create a temp dir: Too many open files (os error 24) at path \"/t/rustcX\"",
        "",
        "ulimit -n",
    ),
    (
        "",
        "error: could not execute process `rustc --crate-name app` (never executed)\n\n\
         Caused by:\n  Resource temporarily unavailable (os error 11)\n",
        "ulimit -u",
    ),
    (
        "",
        "error: failed to open: /t/release/.cargo-lock\n\nCaused by:\n  \
         Read-only file system (os error 30)\n",
        "mount it writable",
    ),
    (
        "failed to read rlib metadata: Input/output error (os error 5)",
        "",
        "may be failing",
    ),
    (
        "",
        "error: could not download file from 'https://static.rust-lang.org/dist/x' to '/r/x'\n",
        "rustup downloads the toolchain",
    ),
    (
        "",
        "error: failed to run custom build command for `app v0.1.0 (/s)`\n\nCaused by:\n  \
         process didn't exit successfully: `/t/build-script-build` (exit status: 101)\n  \
         --- stdout\n  cargo:rerun-if-changed=a\n  cargo:rerun-if-changed=b\n  \
         cargo:rerun-if-changed=c\n  cargo:rerun-if-changed=d\n\n  --- stderr\n\n  \
         thread 'main' panicked at build.rs:3:5:\n  \
         failed to lookup address information: Temporary failure in name resolution\n",
        "--build-sandbox",
    ),
    (
        "",
        "error: failed to download from `https://index.crates.io/se/rd/serde`\n\nCaused by:\n  \
         [60] SSL certificate problem: certificate is not yet valid\n",
        "whether the clock is right",
    ),
    (
        "",
        "error: could not compile `app` (bin \"app\")\n\nCaused by:\n  process didn't exit \
         successfully: `rustc --crate-name app` (signal: 11, SIGSEGV: invalid memory reference)\n",
        "the compiler crashed",
    ),
    (
        "",
        "error: could not compile `app` (bin \"app\")\n\nCaused by:\n  process didn't exit \
         successfully: `rustc --crate-name app` (signal: 9, SIGKILL: kill)\n",
        "want of memory",
    ),
    (
        "",
        "memory allocation of 4096 bytes failed\nerror: could not compile `app` (bin \"app\")\n\n\
         Caused by:\n  process didn't exit successfully: `rustc` (signal: 6, SIGABRT: process \
         abort signal)\nmemory allocation of 4096 bytes failed\n",
        "add memory",
    ),
    (
        "",
        "error: failed to run custom build command for `kernels v0.1.0`\n\n  --- stderr\n  \
         `nvcc --version` failed: No such file or directory (os error 2)\n",
        "install CUDA's compiler",
    ),
    (
        "",
        "error: failed to download `serde v1.0.0`\n\nCaused by:\n  [6] Could not resolve \
         hostname (Could not resolve host: static.crates.io)\n",
        "whether the network is up",
    ),
    (
        "",
        "error: rustc 1.95.0 is not supported by the following packages:\n  a@0.1.0 requires \
         rustc 1.96\n  b@0.1.0 requires rustc 1.100.2\n  c@0.1.0 requires rustc 1.99\n",
        "it needs Rust 1.100.2: `rustup update`",
    ),
    (
        "",
        "error: failed to run custom build command for `app v0.1.0 (/s)`\n\n  --- stderr\n  \
         thread 'main' panicked at build.rs:3:5:\n  Permission denied (os error 13)\n",
        "--build-path",
    ),
];

#[test]
fn machines_are_not_the_commits_fault_and_people_are_told_what_to_do() {
    let source = SourceClone::new();
    for (json, text, todo) in MACHINES {
        let said = format!("{json}{text}");
        let json = [error(json, None, &[])];
        let json = if said == text { &[][..] } else { &json };
        let failed = "error: could not compile `app` (bin \"app\") due to 1 previous error\n";
        let fault = source.fault(json, if text.is_empty() { failed } else { text });
        assert_eq!(fault.blame, Blame::Machine, "{said}: {fault}");
        let hint = fault.hint.unwrap();
        assert!(hint.contains(todo), "{said}: {hint}");
        assert!(hint.contains("`supervisor update`"), "{hint}");
    }
}

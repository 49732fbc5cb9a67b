//! What a build said, and whose fault its failure is.
//!
//! A commit is blamed only with proof: a diagnostic of the compiler about a line that the commit
//! holds. Everything else that ends a build (no linker, a full disk, a killed compiler, a build
//! script that wants the network, a toolchain that is too old) may come right without another
//! commit, so the build is tried again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use shared::file;

use crate::{
    config::Config,
    error::{Blame, Fault},
    job::progress,
};

/// A build that fills its log is cut off here, in bytes; the end is kept apart for the reason.
const MAX_LOG: usize = 16 << 20;
/// A disk with less room than this, in bytes, is full.
const FULL: u64 = 4 << 20;
/// Lines of cargo's error that are shown.
const MAX_REASON: usize = 8;
const MAX_REASON_CHARS: usize = 500;

/// Errors about what lies beside the code: crates of the toolchain or in the target directory that
/// are missing, damaged or of another compiler.
const ENVIRONMENT: [&str; 6] = ["E0460", "E0461", "E0462", "E0463", "E0514", "E0786"];

/// What people can do, by what a failed build says in lower case.
const HINTS: [(&str, &str); 12] = [
    (
        "linker `cc` not found",
        "install a C compiler, such as the package build-essential or gcc",
    ),
    (
        "is `cc` not installed",
        "install a C compiler, such as the package build-essential or gcc",
    ),
    (
        "failed to find tool",
        "install the tool that is named there, such as a C or C++ compiler",
    ),
    (
        "is not supported by the following package",
        "update Rust: `rustup update`",
    ),
    ("requires rustc", "update Rust: `rustup update`"),
    ("nvcc", "install CUDA's compiler, or see --features"),
    ("no space left", "free some space"),
    ("quota exceeded", "free some space"),
    (
        "too many open files",
        "raise the limit of open files (`ulimit -n`)",
    ),
    (
        "cannot allocate memory",
        "close other programs, or add memory",
    ),
    (
        "(signal: 9",
        "something killed the compiler, most likely for want of memory",
    ),
    ("could not resolve host", "see whether the network is up"),
];

/// The captured output of a build; cargo's two streams share it.
pub(super) struct BuildLog {
    inner: Mutex<Captured>,
}

struct Captured {
    file: File,
    size: usize,
    /// From the first line that begins with \"error\".
    reason: Vec<String>,
    last: String,
}

impl BuildLog {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        if let Some(folder) = path.parent() {
            file::create_dir(folder)?;
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Self {
            inner: Mutex::new(Captured {
                file,
                size: 0,
                reason: Vec::new(),
                last: String::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line of text.
    pub(super) fn take(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line).into_owned();
        let word = text.trim_start();
        if word.starts_with("Compiling") || word.starts_with("Downloading") {
            progress(word);
        }
        let mut log = self.lock();
        log.write(line);
        let began = !log.reason.is_empty() || text.starts_with("error");
        if began && log.reason.len() < MAX_REASON && !text.trim().is_empty() {
            log.reason.push(word.trim_end().to_owned());
        }
        if !text.trim().is_empty() {
            log.last = text;
        }
    }
}

impl Captured {
    fn write(&mut self, line: &[u8]) {
        if self.size < MAX_LOG {
            self.size += line.len() + 1;
            let _ = self.file.write_all(&[line, b"\n"].concat());
        }
    }
}

/// What cargo said in JSON.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// By name of the target.
    pub(super) programs: BTreeMap<String, PathBuf>,
    /// The first error of the compiler about a line of the commit.
    proof: Option<String>,
    /// The first error of the compiler about anything else.
    other: Option<String>,
}

/// A line of `--message-format json`; of most, only the reason is read.
#[derive(Debug, Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact {
        target: Target,
        executable: Option<PathBuf>,
    },
    #[serde(rename = "compiler-message")]
    Diagnostic { message: Diagnostic },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    code: Option<Code>,
    #[serde(default)]
    spans: Vec<Span>,
    rendered: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Code {
    code: String,
}

#[derive(Debug, Deserialize)]
struct Span {
    file_name: PathBuf,
    is_primary: bool,
}

impl Diagnostic {
    /// Whether it is about a line of the commit, and nothing beside that may have caused it.
    fn is_proof(&self, source: &Path) -> bool {
        // A path that is not absolute is relative to the workspace, which the commit holds.
        let held = |span: &Span| {
            span.is_primary
                && span.file_name.is_relative()
                && source.join(&span.file_name).is_file()
        };
        let beside = self
            .code
            .as_ref()
            .is_some_and(|code| ENVIRONMENT.contains(&code.code.as_str()));
        // Read errors of included files, and macros that ask a database or the network.
        let world = (self.message.contains("(os error") && !self.message.contains("(os error 2)"))
            || self.message.contains("panicked");
        self.spans.iter().any(held) && !beside && !world
    }
}

impl Outcome {
    /// Takes a line of cargo's standard output.
    pub(super) fn take(&mut self, line: &[u8], source: &Path, log: &BuildLog) {
        match serde_json::from_slice(line) {
            Ok(Message::Artifact {
                target,
                executable: Some(path),
            }) if target.kind.iter().any(|kind| kind == "bin") => {
                self.programs.insert(target.name, path);
            }
            Ok(Message::Diagnostic { message }) => {
                let rendered = message.rendered.as_deref().unwrap_or(&message.message);
                log.lock().write(rendered.trim_end().as_bytes());
                if message.level.starts_with("error") {
                    let first = rendered.lines().next().unwrap_or_default().to_owned();
                    let proof = message.level == "error" && message.is_proof(source);
                    let kind = if proof {
                        &mut self.proof
                    } else {
                        &mut self.other
                    };
                    kind.get_or_insert(first);
                }
            }
            Ok(_) => {}
            Err(_) => log.take(line),
        }
    }

    /// Says why a build failed.
    pub(super) fn fault(&self, status: ExitStatus, log: &BuildLog, config: &Config) -> Fault {
        let captured = log.lock();
        let reason = if captured.reason.is_empty() {
            captured.last.trim().to_owned()
        } else {
            captured.reason.join("; ")
        };
        let see = format!("see {}", config.build_log().display());
        // A compiler that can't write may say anything.
        let full = file::free_space(&config.build.target_dir).is_ok_and(|free| free < FULL);
        if let (Some(proof), Some(1 | 101), false) = (&self.proof, status.code(), full) {
            return Fault::new(Blame::Code, format!("the build failed: {proof}")).hint(see);
        }
        let why = self.other.iter().chain([&reason]);
        let why: Vec<&str> = why
            .map(String::as_str)
            .filter(|why| !why.is_empty())
            .collect();
        let why: String = why.join("; ").chars().take(MAX_REASON_CHARS).collect();
        let why = if why.is_empty() {
            status.to_string()
        } else {
            why
        };
        let lower = why.to_lowercase();
        let known = HINTS.iter().find(|(sign, _)| lower.contains(sign));
        let todo = match known {
            Some((_, todo)) => format!("{todo}; "),
            None if full => "free some space; ".to_owned(),
            None => String::new(),
        };
        Fault::new(Blame::Machine, format!("the build failed: {why}")).hint(format!(
            "{todo}{see}; it is tried again, at once with `supervisor update`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        file::write_atomic(&dir.path().join("main.rs"), b"").unwrap();
        let Message::Diagnostic { message } = serde_json::from_str(text).unwrap() else {
            panic!("{text}");
        };
        message.is_proof(dir.path())
    }

    #[test]
    fn only_a_diagnostic_about_a_line_of_the_commit_is_proof() {
        let line = |message: &str, code: &str, file: &str| {
            let spans = format!(r#"[{{"file_name":{file:?},"is_primary":true}}]"#);
            let spans = if file.is_empty() { "[]" } else { &spans };
            format!(
                r#"{{"reason":"compiler-message","message":{{"level":"error","message":{message:?},
                    "code":{code},"spans":{spans},"rendered":null}}}}"#
            )
        };
        let code = r#"{"code":"E0425"}"#;
        assert!(judged(&line(
            "cannot find value `nonsense`",
            code,
            "main.rs"
        )));
        assert!(judged(&line("expected `;`", "null", "main.rs")));
        for (message, code, file) in [
            ("linking with `cc` failed: exit status: 1", "null", ""),
            (
                "cannot find value",
                code,
                "/root/.cargo/registry/src/a/lib.rs",
            ),
            (
                "can't find crate for `serde`",
                r#"{"code":"E0463"}"#,
                "main.rs",
            ),
            (
                "couldn't read `x`: Input/output error (os error 5)",
                "null",
                "main.rs",
            ),
            ("proc macro panicked", "null", "main.rs"),
        ] {
            assert!(!judged(&line(message, code, file)), "{message}");
        }
    }
}

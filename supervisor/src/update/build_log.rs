//! What a build said, and whose fault its failure is.
//!
//! A commit is blamed only with proof: a diagnostic of the compiler about a line that the commit
//! holds. Everything else that ends a build (no linker, a full disk, a killed compiler, a build
//! script that wants the network, a toolchain that is too old) may come right without another
//! commit, so the build is tried again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use shared::file;

use super::committed::Committed;
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
/// What is searched for signs, in bytes.
const MAX_SAID: usize = 1 << 16;

/// Errors about what lies beside the code: crates of the toolchain or in the target directory that
/// are missing, damaged or of another compiler.
const ENVIRONMENT: [&str; 6] = ["E0460", "E0461", "E0462", "E0463", "E0514", "E0786"];

/// Signs that the compiler speaks of the world: a file that can't be read, a macro that asks a database
/// or the network, a variable that this machine's environment lacks.
const WORLD: [&str; 3] = ["(os error", "panicked", "not defined at compile time"];

/// Where the compiler says that the standard library is.
const STANDARD_LIBRARY: &str = "/rustc";

/// What people can do, by what a failed build says in lower case.
const HINTS: &[(&str, &str)] = &[
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
        "could not download file from 'https://static.rust-lang.org",
        "see whether the network is up: rustup downloads the toolchain that the commit asks for",
    ),
    ("nvcc", "install CUDA's compiler, or see --features"),
    ("no space left", "free some space"),
    ("quota exceeded", "free some space, or raise the quota"),
    (
        "read-only file system",
        "mount it writable, or choose another --target-dir or --state-dir",
    ),
    (
        "input/output error",
        "look at the disk (`dmesg`): it may be failing",
    ),
    (
        "resource temporarily unavailable",
        "raise the limit of processes (`ulimit -u`), or close other programs",
    ),
    (
        "too many open files",
        "raise the limit of open files (`ulimit -n`)",
    ),
    (
        "cannot allocate memory",
        "close other programs, or add memory",
    ),
    (
        "memory allocation of",
        "close other programs, or add memory",
    ),
    (
        "(signal: 9",
        "something killed the compiler, most likely for want of memory",
    ),
    (
        "sigsegv",
        "the compiler crashed: test the memory, or reinstall Rust",
    ),
    (
        "certificate",
        "see whether the clock is right and the network is not tampered with",
    ),
    (
        "name resolution",
        "a build script wants the network, which is off while code is compiled: see --build-sandbox",
    ),
    ("could not resolve host", "see whether the network is up"),
    (
        "permission denied",
        "builds see and write less than you do: see --build-path and --build-sandbox",
    ),
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
    /// The newest Rust that a package asks for.
    wanted_rust: Option<Vec<u64>>,
    /// All that was said since then, in lower case.
    said: String,
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
                wanted_rust: None,
                said: String::new(),
                last: String::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that a program says.
    pub(super) fn follow(&self, output: impl Read) {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            self.take(&line);
        }
    }

    /// What failed was not needed after all.
    pub(super) fn forget_reason(&self) {
        let mut log = self.lock();
        log.reason.clear();
        log.said.clear();
        log.wanted_rust = None;
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
        if let Some((_, wanted)) = text.split_once(" requires rustc ") {
            let numbers = wanted.trim().split('.').map_while(|part| part.parse().ok());
            log.wanted_rust = log.wanted_rust.take().max(Some(numbers.collect()));
        }
        let began = !log.reason.is_empty() || text.starts_with("error");
        if began && log.said.len() < MAX_SAID {
            log.said.push_str(&text.to_lowercase());
            log.said.push('\n');
        }
        if began && log.reason.len() < MAX_REASON && !text.trim().is_empty() {
            log.reason.push(word.trim_end().to_owned());
        }
        if !text.trim().is_empty() {
            word.trim_end().clone_into(&mut log.last);
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
    expansion: Option<Box<Expansion>>,
}

/// A macro that made the code, and where it is defined.
#[derive(Debug, Deserialize)]
struct Expansion {
    span: Span,
    def_site_span: Option<Span>,
}

impl Span {
    /// Whether a macro made it that is neither of the commit nor of the standard library.
    fn is_made_elsewhere(&self, commit: &Committed) -> bool {
        self.expansion.as_ref().is_some_and(|expansion| {
            let made_by = expansion.def_site_span.as_ref().map(|site| &site.file_name);
            // A procedural macro has no place.
            let elsewhere = made_by
                .is_none_or(|file| !commit.holds(file) && !file.starts_with(STANDARD_LIBRARY));
            elsewhere || expansion.span.is_made_elsewhere(commit)
        })
    }
}

impl Diagnostic {
    /// Whether it is about a line of the commit, and nothing beside that may have caused it.
    fn is_proof(&self, commit: &Committed) -> bool {
        let code = self.code.as_ref().map(|code| code.code.as_str());
        let beside = code.is_some_and(|code| ENVIRONMENT.contains(&code));
        let world = WORLD.iter().any(|sign| self.message.contains(sign));
        // What a macro of another crate says by itself may come from a database or the network. The
        // compiler's own errors about what a macro made have codes.
        let held = |span: &&Span| {
            span.is_primary
                && commit.holds(&span.file_name)
                && (code.is_some() || !span.is_made_elsewhere(commit))
        };
        self.spans.iter().find(held).is_some() && !beside && !world
    }
}

impl Outcome {
    /// Takes a line of cargo's standard output.
    pub(super) fn take(&mut self, line: &[u8], commit: &Committed, log: &BuildLog) {
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
                    let proof = message.level == "error" && message.is_proof(commit);
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
        let mut reason = captured.reason.join("; ");
        // What a build script said last is often what matters.
        if !captured.reason.contains(&captured.last) && reason.len() < MAX_REASON_CHARS {
            reason = format!("{reason}; {}", captured.last);
        }
        let reason = reason.trim_start_matches("; ").to_owned();
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
        let lower = format!("{}\n{}", why.to_lowercase(), captured.said);
        let known = HINTS.iter().find(|(sign, _)| lower.contains(sign));
        let todo = match (&captured.wanted_rust, known) {
            (Some(wanted), _) => {
                let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                let wanted = wanted.join(".");
                format!("it needs Rust {wanted}: `rustup update`; ")
            }
            (None, Some((_, todo))) => format!("{todo}; "),
            (None, None) if full => "free some space; ".to_owned(),
            (None, None) => String::new(),
        };
        Fault::new(Blame::Machine, format!("the build failed: {why}")).hint(format!(
            "{todo}{see}; it is tried again, at once with `supervisor update`"
        ))
    }
}

#[cfg(test)]
mod tests;

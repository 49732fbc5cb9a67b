//! Building a version beside the running one.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Instant,
};

use nix::unistd::getpgrp;
use shared::file;

use super::{checkout, clone, login::Login, release::Release, state::Version, transport, worktree};
use crate::{
    config::{BuildConfig, Config, GitSource},
    error::{Blame, Fault},
    job::progress,
};

/// A build that fills its log is cut off here; the end is kept apart for the reason.
const MAX_LOG: usize = 16 << 20;
/// A disk with less room than this, in bytes, is full.
const FULL: u64 = 4 << 20;
const TAIL_LINES: usize = 40;

/// What cargo and rustc say when the network or the machine is at fault, not the code.
const PASSING: [&str; 13] = [
    "could not resolve host",
    "failed to download",
    "failed to fetch",
    "download of config.json failed",
    "connection refused",
    "network failure",
    "spurious network error",
    "operation timed out",
    "no space left on device",
    "cannot allocate memory",
    "(signal: 7",
    "(signal: 9",
    "unable to update registry",
];

/// Returns whether a version is installed and undamaged.
pub(crate) fn is_installed(config: &Config, version: &Version) -> bool {
    let installed = Release::read(&config.home, &version.release);
    installed.is_some_and(|release| release.damaged(&config.home).is_none())
}

/// Checks a version out, builds it and installs it.
pub(crate) fn run(config: &Config, git: &GitSource, version: &Version) -> Result<(), Fault> {
    let checkout = checkout::open(&config.repo)?;
    let origin = checkout.find_remote("origin").ok();
    let origin = origin.as_ref().and_then(|origin| origin.url().ok());
    // A clone that has to be made anew lacks the commit; the next poll brings it again.
    transport::with_login(Login::of(config, git), || {
        clone::with(&config.home, &checkout, |source| {
            worktree::check_out(source, version, origin)
        })
    })?;
    let options = &config.build;
    preflight(options)?;
    let started = Instant::now();
    cargo(config, version)?;
    let folder = options.target_dir.join(profile_folder(&options.profile));
    let programs: Vec<_> = options
        .bins
        .iter()
        .map(|name| (name.clone(), folder.join(name)))
        .collect();
    let inputs = inputs(&programs, &config.home.source());
    Release::install(
        &config.home,
        version,
        &programs,
        started.elapsed().as_secs(),
        inputs,
    )
}

fn profile_folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

fn preflight(options: &BuildConfig) -> Result<(), Fault> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let free = file::free_space(&options.target_dir)?;
    if free < options.min_disk {
        let text = format!(
            "{:.1} GiB free for the build in {}, {:.1} GiB wanted",
            gib(free),
            options.target_dir.display(),
            gib(options.min_disk)
        );
        return Err(Fault::new(Blame::Machine, text).hint("free some, or lower --min-disk"));
    }
    if let Some(available) = available_memory()
        && available < options.min_memory
    {
        let text = format!(
            "{:.1} GiB memory available for the build, {:.1} GiB wanted",
            gib(available),
            gib(options.min_memory)
        );
        return Err(Fault::new(Blame::Machine, text).hint("lower --min-memory"));
    }
    Ok(())
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn cargo(config: &Config, version: &Version) -> Result<(), Fault> {
    let options = &config.build;
    let mut command = shared::process::blocking_command("nice");
    command
        .args(["-n", "10", "cargo", "build", "--locked", "--color", "never", "--profile"])
        .arg(&options.profile)
        .arg("--target-dir")
        .arg(&options.target_dir)
        .args(options.bins.iter().flat_map(|name| ["--bin", name.as_str()]))
        .current_dir(config.home.source())
        .env("BUILD_COMMIT", &version.release)
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        // One group with this worker: what ends it ends the build.
        .process_group(getpgrp().as_raw())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    let mut child = command.spawn().map_err(|error| {
        Fault::new(Blame::Machine, format!("could not start cargo: {error}"))
            .hint("install Rust (https://rustup.rs) and see that PATH has ~/.cargo/bin")
    })?;
    let mut log = BuildLog::open(&config.build_log())?;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            log.take(&line?);
        }
    }
    log.judge(child.wait()?, config, version)
}

/// Compilers and linkers have many ways to end on a full disk, and few of them say so.
fn is_full(folder: &Path) -> bool {
    file::free_space(folder).is_ok_and(|free| free < FULL)
}

/// The captured output of a build.
struct BuildLog {
    file: File,
    size: usize,
    tail: Vec<String>,
    error: Option<String>,
    passing: bool,
}

impl BuildLog {
    fn open(path: &Path) -> Result<Self, Fault> {
        if let Some(folder) = path.parent() {
            file::create_dir(folder)?;
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Self {
            file,
            size: 0,
            tail: Vec::new(),
            error: None,
            passing: false,
        })
    }

    fn take(&mut self, line: &[u8]) {
        if self.size < MAX_LOG {
            self.size += line.len() + 1;
            let _ = self.file.write_all(&[line, b"\n"].concat());
        }
        let line = String::from_utf8_lossy(line).into_owned();
        let lower = line.to_lowercase();
        self.passing |= PASSING.iter().any(|sign| lower.contains(sign));
        if self.error.is_none() && line.starts_with("error") {
            self.error = Some(line.clone());
        }
        let word = line.trim_start();
        if word.starts_with("Compiling") || word.starts_with("Downloading") {
            progress(word);
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.remove(0);
        }
        self.tail.push(line);
    }

    fn judge(&self, status: ExitStatus, config: &Config, version: &Version) -> Result<(), Fault> {
        if status.success() {
            return Ok(());
        }
        let last = self.tail.iter().rev().find(|line| !line.trim().is_empty());
        let why = self
            .error
            .as_ref()
            .or(last)
            .map_or("no output", String::as_str);
        // `nice` says 127 when there is no cargo; no code means that a signal ended it.
        let blame = match status.code() {
            None | Some(126 | 127) => Blame::Machine,
            Some(_) if self.passing || is_full(&config.build.target_dir) => Blame::Outside,
            Some(_) => Blame::Code,
        };
        let why: String = why.chars().take(300).collect();
        let fault = Fault::new(blame, format!("the build failed: {why}"));
        Err(fault
            .hint(format!("see {}", config.build_log().display()))
            .on(&version.commit))
    }
}

/// Reads cargo's dependency files: which files of the repository went into the programs.
fn inputs(programs: &[(String, PathBuf)], source: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for (_, program) in programs {
        let Ok(Some(bytes)) = file::read_limited(&program.with_extension("d"), 1 << 24) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes).replace("\\ ", "\u{0}");
        all.extend(
            text.split_whitespace()
                .map(|path| path.replace('\u{0}', " "))
                .filter_map(|path| Some(Path::new(&path).strip_prefix(source).ok()?.to_owned()))
                .map(|path| path.to_string_lossy().into_owned()),
        );
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_files_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("app");
        let text = "/t/app: /src/a b.rs /src/my\\ file.md /root/.cargo/x.rs /src/main.rs\n";
        file::write_atomic(&program.with_extension("d"), text.as_bytes()).unwrap();
        let inputs = inputs(&[("app".into(), program)], Path::new("/src"));
        assert_eq!(inputs, ["a", "main.rs", "my file.md"]);
    }
}

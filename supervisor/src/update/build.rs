//! Building a version beside the running one, and the smoke test that follows.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::getpgrp;
use shared::file;

use super::{channel, clone, login::Login, release::Release, remote, transport, worktree};
use crate::{
    error::{Blame, Fault},
    job::{Build, Test},
    self_update::PROGRAM,
    worker::progress,
};

/// A build that fills its log is cut off here; the end is kept apart for the reason.
const MAX_LOG: usize = 16 << 20;
/// A disk with less room than this, in bytes, is full.
const FULL: u64 = 4 << 20;
const TAIL_LINES: usize = 40;
const SMOKE_LIMIT: Duration = Duration::from_secs(60);

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

/// Checks a version out, builds it and installs it. A release that is there already is kept.
pub fn run(job: &Build) -> Result<(), Fault> {
    let installed = Release::read(&job.home, &job.version.release);
    if installed.is_some_and(|release| release.damaged(&job.home).is_none()) {
        return Ok(());
    }
    if let Some(downloads) = &job.downloads {
        return channel::fetch(job, downloads);
    }
    let checkout = remote::open_checkout(&job.repo)?;
    let origin = checkout.find_remote("origin").ok();
    let origin = origin.as_ref().and_then(|origin| origin.url().ok());
    // A clone that has to be made anew lacks the commit; the next poll brings it again.
    let login = Login {
        checkout: job.repo.clone(),
        ssh_keys: job.ssh_keys.clone(),
    };
    transport::with_login(login, || {
        clone::with(&job.home, &checkout, |source| {
            worktree::check_out(source, &job.version, origin)
        })
    })?;
    preflight(job)?;
    let started = Instant::now();
    cargo(job)?;
    let folder = job.target_dir.join(profile_folder(&job.profile));
    let programs: Vec<_> = job
        .bins
        .iter()
        .map(|name| (name.clone(), folder.join(name)))
        .collect();
    let inputs = inputs(&programs, &job.home.source());
    Release::install(
        &job.home,
        &job.version,
        &programs,
        started.elapsed().as_secs(),
        inputs,
    )
}

fn profile_folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

fn preflight(job: &Build) -> Result<(), Fault> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let free = file::free_space(&job.target_dir)?;
    if free < job.min_disk {
        let text = format!(
            "{:.1} GiB free for the build in {}, {:.1} GiB wanted",
            gib(free),
            job.target_dir.display(),
            gib(job.min_disk)
        );
        return Err(Fault::new(Blame::Machine, text).hint("free some, or lower --min-disk"));
    }
    if let Some(available) = available_memory()
        && available < job.min_memory
    {
        let text = format!(
            "{:.1} GiB memory available for the build, {:.1} GiB wanted",
            gib(available),
            gib(job.min_memory)
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

fn cargo(job: &Build) -> Result<(), Fault> {
    let mut command = shared::process::blocking_command("nice");
    command
        .args(["-n", "10", "cargo", "build", "--locked", "--color", "never", "--profile"])
        .arg(&job.profile)
        .arg("--target-dir")
        .arg(&job.target_dir)
        .args(job.bins.iter().flat_map(|name| ["--bin", name.as_str()]))
        .current_dir(job.home.source())
        .env("BUILD_COMMIT", &job.version.release)
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        // One group with this worker: what ends it ends the build.
        .process_group(getpgrp().as_raw())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if !job.features.is_empty() {
        command.arg("--features").arg(job.features.join(","));
    }
    let mut child = command.spawn().map_err(|error| {
        Fault::new(Blame::Machine, format!("could not start cargo: {error}"))
            .hint("install Rust (https://rustup.rs) and see that PATH has ~/.cargo/bin")
    })?;
    let mut log = BuildLog::open(&job.log)?;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            log.take(&line?);
        }
    }
    log.judge(child.wait()?, job)
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

    fn judge(&self, status: ExitStatus, job: &Build) -> Result<(), Fault> {
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
            Some(_) if self.passing || is_full(&job.target_dir) => Blame::Outside,
            Some(_) => Blame::Code,
        };
        let why: String = why.chars().take(300).collect();
        let fault = Fault::new(blame, format!("the build failed: {why}"));
        Err(fault
            .hint(format!("see {}", job.log.display()))
            .on(&job.version.commit))
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

/// Runs the installed programs: each must name the new version, and the first must accept the
/// child's configuration.
pub fn smoke_test(job: &Test) -> Result<(), Fault> {
    let folder = job.home.release(&job.version.release);
    let named = &job.version.release;
    for name in &job.bins {
        let (status, output) = capture(&folder.join(name), &["--version".into()], job)?;
        if !status.success() || !output.contains(named.as_str()) {
            let said: String = output.trim().chars().take(200).collect();
            let text = format!("`{name} --version` does not name {named}: {said}");
            return Err(Fault::new(Blame::Code, text).on(&job.version.commit));
        }
    }
    if job.bins.iter().any(|name| name == PROGRAM) {
        supervisor_understands(job)?;
    }
    let (Some(first), false) = (job.bins.first(), job.check.is_empty()) else {
        return Ok(());
    };
    let args: Vec<_> = job
        .check
        .iter()
        .map(Into::into)
        .chain(job.args.iter().cloned())
        .collect();
    let (status, output) = capture(&folder.join(first), &args, job)?;
    if status.success() {
        return Ok(());
    }
    let blame = match status.code() {
        Some(75) => Blame::Outside,
        Some(74) => Blame::Machine,
        _ => Blame::Code,
    };
    let said: String = output.trim().chars().take(300).collect();
    let text = format!(
        "`{first} {}` failed ({status}): {said}",
        job.check.join(" ")
    );
    Err(Fault::new(blame, text).on(&job.version.commit))
}

/// Lets a new supervisor read our arguments, configuration and state, as it will have to when it
/// takes over. What it finds wrong with the world (exit code 1) is not its fault.
fn supervisor_understands(job: &Test) -> Result<(), Fault> {
    let program = job.home.release(&job.version.release).join(PROGRAM);
    let own = job.own_args.iter().skip_while(|arg| *arg == "run").cloned();
    let args: Vec<_> = ["doctor", "--offline"]
        .map(OsString::from)
        .into_iter()
        .chain(own)
        .collect();
    let (status, output) = capture(&program, &args, job)?;
    if matches!(status.code(), Some(0 | 1)) {
        return Ok(());
    }
    let said: String = output.trim().chars().take(300).collect();
    let text = format!("the new supervisor can't take over ({status}): {said}");
    Err(Fault::new(Blame::Code, text).on(&job.version.commit))
}

fn capture(program: &Path, args: &[OsString], job: &Test) -> Result<(ExitStatus, String), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut command = shared::process::command(program);
        command
            .args(args)
            .current_dir(&job.cwd)
            .process_group(getpgrp().as_raw());
        command.env_remove("NOTIFY_SOCKET");
        let output = tokio::time::timeout(SMOKE_LIMIT, command.output())
            .await
            .map_err(|_| {
                let text = format!("{} did not end within {SMOKE_LIMIT:?}", program.display());
                Fault::new(Blame::Code, text).on(&job.version.commit)
            })?;
        let output = output.map_err(|error| {
            Fault::new(
                Blame::Code,
                format!("could not run {}: {error}", program.display()),
            )
        })?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&text).into_owned()))
    })
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

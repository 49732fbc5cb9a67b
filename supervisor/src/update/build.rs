//! Building a version beside the running one.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use nix::unistd::getpgrp;
use sha2::{Digest, Sha256};
use shared::file;

use super::{
    build_environment::BuildStage,
    build_log::{BuildLog, Outcome},
    checkout, clone,
    committed::Committed,
    login::Login,
    release::Release,
    sandbox::{self, Sandbox},
    state::Version,
    transport, worktree,
};
use crate::{
    config::{BuildConfig, Config, GitSource},
    error::{Blame, Fault},
};

/// Returns whether a version is installed, undamaged, and built from the same with the same: after a new
/// toolchain or with other features the program of the last try says nothing.
pub(crate) fn is_installed(config: &Config, version: &Version) -> bool {
    let installed = Release::read(&config.home, &version.release);
    installed.is_some_and(|release| {
        release.version.build == version.build && release.damaged(&config.home).is_none()
    })
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
    let programs = cargo(config, version)?;
    let inputs = inputs(&programs, &config.home.source());
    Release::install(
        &config.home,
        version,
        &programs,
        started.elapsed().as_secs(),
        inputs,
    )
}

/// Returns a digest of what is built and with what; `files` is a digest of the sources.
pub(crate) fn identity(config: &Config, files: &str) -> String {
    let options = &config.build;
    let mut command = shared::process::blocking_command("rustc");
    command
        .arg("-vV")
        .current_dir(&config.repo)
        // Nothing is downloaded for a question.
        .env("RUSTUP_AUTO_INSTALL", "0");
    let toolchain = command.output().map(|output| output.stdout);
    let mut digest = Sha256::new();
    digest.update(files);
    digest.update(toolchain.unwrap_or_default());
    for part in [&options.profile]
        .into_iter()
        .chain(&options.features)
        .chain(&options.bins)
    {
        digest.update(part);
        digest.update([0]);
    }
    hex::encode(digest.finalize())
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

/// Builds, and returns where each program is: cargo's configuration may say anything about that.
fn cargo(config: &Config, version: &Version) -> Result<Vec<(String, PathBuf)>, Fault> {
    let options = &config.build;
    let log = BuildLog::open(&config.build_log())?;
    // What compilers that were killed left behind.
    file::remove_dir(&sandbox::scratch(options))?;
    let fetched = fetch(config, &log)?;
    let sandbox = Sandbox::of(config, BuildStage::Compile, !fetched)?;
    let mut command = cargo_command(config, &sandbox, "build");
    command
        .args(["--message-format", "json", "--profile"])
        .arg(&options.profile)
        .arg("--target-dir")
        .arg(&options.target_dir)
        .args(
            options
                .bins
                .iter()
                .flat_map(|name| ["--bin", name.as_str()]),
        );
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    if fetched && !options.keeps_network() {
        command.arg("--offline");
    }
    let set = [
        ("BUILD_COMMIT", version.release.as_str()),
        ("CARGO_TERM_PROGRESS_WHEN", "never"),
    ];
    let (mut child, walls) = sandbox
        .spawn(&mut command, &set)
        .map_err(|error| no_cargo(&error))?;
    for (wall, stands) in walls {
        if let Err(why) = stands {
            tracing::info!(wall, why, "a wall around the build does not stand");
        }
    }
    let mut outcome = Outcome::default();
    let commit = Committed::of(&config.home.source(), &version.source)?;
    std::thread::scope(|scope| {
        if let Some(stderr) = child.stderr.take() {
            scope.spawn(|| log.follow(stderr));
        }
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                outcome.take(&line, &commit, &log);
            }
        }
    });
    let status = child.wait()?;
    if !status.success() {
        return Err(outcome.fault(status, &log, config).on(&version.commit));
    }
    options
        .bins
        .iter()
        .map(|name| {
            let path = outcome.programs.get(name).ok_or_else(|| {
                let text = format!("cargo did not say where {name} is");
                Fault::new(Blame::Machine, text)
            })?;
            Ok((name.clone(), path.clone()))
        })
        .collect()
}

/// Fetches all that the lockfile names, so that the network can be off while code of it is run. Returns
/// whether that succeeded: if not, the build tries itself, and says why it can't.
fn fetch(config: &Config, log: &BuildLog) -> Result<bool, Fault> {
    let sandbox = Sandbox::of(config, BuildStage::Fetch, true)?;
    let mut command = cargo_command(config, &sandbox, "fetch");
    let (mut child, _) = sandbox
        .spawn(&mut command, &[])
        .map_err(|error| no_cargo(&error))?;
    // It says nothing there.
    drop(child.stdout.take());
    if let Some(stderr) = child.stderr.take() {
        log.follow(stderr);
    }
    let fetched = child.wait()?.success();
    if !fetched {
        log.forget_reason();
    }
    Ok(fetched)
}

fn cargo_command(config: &Config, sandbox: &Sandbox, what: &str) -> Command {
    let mut command = sandbox.command("nice");
    command
        .args(["-n", "10", "cargo", what, "--locked", "--color", "never"])
        .current_dir(config.home.source())
        // One group with this worker: what ends it ends the build.
        .process_group(getpgrp().as_raw())
        .stderr(Stdio::piped());
    command
}

fn no_cargo(error: &std::io::Error) -> Fault {
    Fault::new(Blame::Machine, format!("could not start cargo: {error}"))
        .hint("install Rust (https://rustup.rs) and see that PATH has ~/.cargo/bin")
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

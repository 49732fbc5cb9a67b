//! The programs of the demo: cargo, and the supervisor with its validator.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use nix::sys::signal::Signal;
use serde::Deserialize;
use shared::{Exit, Failure, process, status::Status};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// The child's name under the supervisor.
const NAME: &str = "demo";
/// Longest answer of a status command.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// Finds cargo or says how to get it.
pub(super) async fn check_cargo() -> Result<(), Failure> {
    let found = process::command("cargo").arg("--version").output().await;
    match found {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Failure::new(Exit::Config, "cargo does not work")
            .because(String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(Failure::new(Exit::Config, "there is no cargo in PATH")
            .caused_by(&error)
            .hint("install Rust (https://rustup.rs) and open a new shell")),
    }
}

/// How the demo's programs are built.
pub(super) struct Cargo {
    pub(super) profile: String,
    /// Where the programs go. The demo has a folder of its own for them, so that the checkout's
    /// `target/debug/validator` never is one of the versions that the demo makes up.
    pub(super) target_dir: PathBuf,
    /// Where cargo keeps what programs are made of; shared, so that dependencies are compiled once.
    /// <https://doc.rust-lang.org/cargo/reference/config.html#buildbuild-dir>
    pub(super) build_dir: PathBuf,
}

impl Cargo {
    /// Returns what cargo needs in its environment, wherever it is started.
    fn environment(&self) -> (&'static str, &Path) {
        ("CARGO_BUILD_BUILD_DIR", &self.build_dir)
    }

    /// Builds a program of the checkout; the spinner shows what is compiled.
    pub(super) async fn build(
        &self,
        program: &str,
        checkout: &Path,
        spinner: &ProgressBar,
    ) -> Result<PathBuf, Failure> {
        let (build_dir, folder) = self.environment();
        let mut command = process::command("cargo");
        command
            .args(["build", "--locked", "--color", "never", "--bin", program])
            .args(["--profile", &self.profile, "--target-dir"])
            .arg(&self.target_dir)
            .env(build_dir, folder)
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .current_dir(checkout)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let failed = |error: std::io::Error| {
            Failure::of(Exit::Machine, &error).because(format_args!("could not build {program}"))
        };
        let mut child = Group(command.spawn().map_err(failed)?);
        let mut tail: Vec<String> = Vec::new();
        if let Some(stderr) = child.0.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines.next_line().await.map_err(failed)? {
                spinner.set_message(format!("building the {program}: {}", line.trim()));
                if tail.len() == 20 {
                    tail.remove(0);
                }
                tail.push(line);
            }
        }
        let status = child.0.wait().await.map_err(failed)?;
        if !status.success() {
            let failure = Failure::new(Exit::Failed, format!("the {program} does not build"));
            return Err(tail.iter().fold(failure, Failure::because));
        }
        let profile = match self.profile.as_str() {
            "dev" => "debug",
            profile => profile,
        };
        Ok(self.target_dir.join(profile).join(program))
    }
}

/// Kills the whole process group of a child when dropped: cargo has children of its own.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.id() {
            // Nothing more can be done about a group that can't be killed.
            let _ = process::signal_group(group, Signal::SIGKILL);
        }
    }
}

#[derive(Debug)]
pub(super) struct Supervisor {
    program: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
    child: Child,
}

/// The part of `supervisor status --json` that the demo reads.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Report {
    pub(super) child: ChildReport,
    pub(super) update: UpdateReport,
}

/// The validator as the supervisor sees it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ChildReport {
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) reason: Option<String>,
    pub(super) release: Option<String>,
    pub(super) phase: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct UpdateReport {
    pub(super) phase: String,
    pub(super) progress: Option<String>,
    pub(super) problem: Option<String>,
    accepted: Option<Accepted>,
    pub(super) quarantine: BTreeMap<String, String>,
}

/// The version that runs when no update is under way.
#[derive(Debug, Clone, Deserialize)]
struct Accepted {
    commit: String,
}

impl Report {
    /// One line on what is going on.
    pub(super) fn line(&self) -> String {
        let mut parts = vec![format!("supervisor: {}", self.update.phase)];
        parts.extend(self.update.progress.clone());
        parts.push(format!("validator: {}", self.child.state));
        parts.extend(self.child.phase.clone());
        parts.join(" · ")
    }

    /// The commit that was accepted last.
    pub(super) fn accepted(&self) -> Option<&String> {
        self.update
            .accepted
            .as_ref()
            .map(|accepted| &accepted.commit)
    }

    /// What stands in the way, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        let fails = self.is_hopeless() || self.child.state == "waiting";
        let child = self.child.reason.clone().filter(|_| fails);
        self.update.problem.clone().or(child)
    }

    /// Whether waiting will not help.
    pub(super) fn is_hopeless(&self) -> bool {
        self.child.state == "misconfigured"
    }
}

/// What a supervisor is started with.
pub(super) struct Launch<'a> {
    pub(super) program: PathBuf,
    /// Its folder; also of its log.
    pub(super) folder: &'a Path,
    pub(super) checkout: &'a Path,
    pub(super) allowed_signers: &'a Path,
    /// How it builds the validator.
    pub(super) cargo: &'a Cargo,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) arguments: Vec<String>,
}

impl Supervisor {
    /// Starts it; it goes on to build and run the validator.
    pub(super) fn start(launch: Launch<'_>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::of(Exit::Machine, &error).because("could not start the supervisor")
        };
        shared::file::create_dir(launch.folder)
            .map_err(|error| Failure::of(Exit::Machine, &error))?;
        let log = launch.folder.join("supervisor.log");
        let output = std::fs::File::create(&log).map_err(failed)?;
        let mut command = process::command(&launch.program);
        command
            .args([
                "run",
                "--child-name",
                NAME,
                "--branch",
                crate::remote::BRANCH,
            ])
            .args(["--interval", "2s", "--jitter", "0s", "--hold-off", "0s"])
            .args([
                "--probation",
                "3s",
                "--ready-timeout",
                "2m",
                "--max-wait",
                "30s",
            ])
            .args([
                "--stop-timeout",
                "15s",
                "--echo",
                "never",
                "--profile",
                &launch.cargo.profile,
            ])
            .args(["--min-disk", "1G", "--min-memory", "256M"])
            .arg("--state-dir")
            .arg(launch.folder)
            .arg("--repo")
            .arg(launch.checkout)
            .arg("--require-signed")
            .arg(launch.allowed_signers)
            .arg("--target-dir")
            .arg(&launch.cargo.target_dir)
            .arg("--")
            .args(&launch.arguments)
            .envs(launch.environment)
            .envs([launch.cargo.environment()])
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output);
        let child = command.spawn().map_err(failed)?;
        let state_dir = launch.folder.to_owned();
        Ok(Self {
            program: launch.program,
            state_dir,
            log,
            child,
        })
    }

    /// Asks it how things are; `None` while it can't answer yet. An error if it has ended.
    pub(super) async fn report(&mut self) -> Result<Option<Report>, Failure> {
        if let Ok(Some(status)) = self.child.try_wait() {
            let failure = Failure::new(Exit::Failed, format!("the supervisor ended: {status}"));
            let failure = self
                .last_words()
                .into_iter()
                .fold(failure, Failure::because);
            return Err(failure.hint(format!("its log is {}", self.log.display())));
        }
        let answer = timeout(STATUS_LIMIT, self.ask(&["status", "--json"]).output()).await;
        let Ok(Ok(answer)) = answer else {
            return Ok(None);
        };
        Ok(serde_json::from_slice(&answer.stdout).ok())
    }

    /// Returns the last lines of its log and of the validator's.
    pub(super) fn last_words(&self) -> Vec<String> {
        let child = self
            .state_dir
            .join(NAME)
            .join("logs")
            .join(format!("{NAME}.log"));
        let mut lines = Vec::new();
        for log in [&self.log, &child] {
            let text = std::fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let all: Vec<&str> = text.lines().collect();
            lines.extend(
                all[all.len().saturating_sub(6)..]
                    .iter()
                    .map(ToString::to_string),
            );
        }
        lines
    }

    fn ask(&self, words: &[&str]) -> Command {
        let mut command = process::command(&self.program);
        command
            .args(words)
            .args(["--child-name", NAME])
            .arg("--state-dir")
            .arg(&self.state_dir);
        command.stderr(Stdio::null());
        command
    }

    /// Stops it and the validator: asks both to, and kills what is left after `limit` or as soon
    /// as `hurry` is ready. Fails if a process survives that.
    pub(super) async fn stop(
        mut self,
        limit: Duration,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let own = self.child.id();
        if let Some(group) = own {
            // The wait below tells whether it worked.
            let _ = process::signal_group(group, Signal::SIGTERM);
        }
        tokio::select! {
            _ = timeout(limit, self.child.wait()) => {}
            () = hurry => {}
        }
        // The validator lives in a group of its own and outlives a supervisor that is killed.
        let validator = <Status>::read(&self.state_dir.join(NAME).join("status.json"));
        let validator = validator.ok().flatten().map(|status| status.pid);
        let groups: Vec<u32> = own.into_iter().chain(validator).collect();
        for group in &groups {
            let _ = process::signal_group(*group, Signal::SIGKILL);
        }
        let _ = timeout(limit, self.child.wait()).await;
        let deadline = Instant::now() + Duration::from_secs(5);
        while groups.iter().any(|group| process::group_alive(*group)) {
            if Instant::now() > deadline {
                return Err(Failure::new(Exit::Bug, "a process is left behind")
                    .because(format_args!("process groups {groups:?}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use shared::file::{create_dir, write_atomic};

    use super::*;

    #[tokio::test]
    async fn what_the_demo_builds_stays_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        create_dir(&path("checkout/src")).unwrap();
        let package = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        let lock = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n";
        for (name, text) in [
            ("Cargo.toml", package),
            ("Cargo.lock", lock),
            ("src/main.rs", "fn main() {}\n"),
        ] {
            write_atomic(&path("checkout").join(name), text.as_bytes()).unwrap();
        }
        let cargo = Cargo {
            profile: "dev".to_owned(),
            target_dir: path("demo"),
            build_dir: path("checkout/target"),
        };
        let program = cargo
            .build("app", &path("checkout"), &ProgressBar::hidden())
            .await
            .unwrap();
        assert_eq!(program, path("demo/debug/app"));
        assert!(program.is_file());
        // What dependencies would share is where the checkout's own builds look for it.
        assert!(fs::exists(path("checkout/target/debug/deps")).unwrap());
        assert!(!fs::exists(path("checkout/target/debug/app")).unwrap());
    }
}

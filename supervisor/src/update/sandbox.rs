//! Walls around a build: its scripts and macros are code of the commit, and run as the operator's user.
//!
//! # Mechanism
//!
//! A program of ours (`confine`) raises the walls around itself and becomes cargo. Two of them keep the same from a
//! build, each where the kernel lacks the other: home folders, our own state, the operator's checkout, and whatever
//! the child's arguments and our environment name. Namespaces take these out of sight (`view`), and with them all
//! processes that are not of the build. landlock lets a build read all else, write nothing but the target directory,
//! and signal and inspect only what is its own. seccomp takes away new sockets of any kind while code of the
//! commit is compiled, and calls that lead around walls. Root loses most of its capabilities.
//!
//! # Limits
//!
//! Sources are fetched with the network on. Fetching runs no build script, but cargo asks the compiler
//! for its version, and a commit's `.cargo/config.toml` may name another program as that: it could talk
//! to the world about what it sees, which is not secret by then. Without namespaces, names and sizes of files stay
//! visible (landlock has no rule for stat(2)); without landlock, files elsewhere that this user may write can be
//! written. Where a kernel lacks a wall, builds go on without it; `doctor` and the log say so. A new release is run with
//! the child's rights a moment later: these walls are for those who may commit and not be reviewed in time, not for a
//! release that is accepted.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use shared::file;

use super::{
    build_environment::{self, BuildStage},
    confine::{self, Confinement, Wall},
    visible::{ALL_DEVICES, entries_beside, hidden, visible},
};
use crate::{
    config::{BuildConfig, BuildSandbox, Config},
    self_update::OWN_IMAGE,
};

const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];
/// What cargo writes below its own folder while it only builds.
const CARGO_LOCKS: [&str; 3] = [".package-cache", ".package-cache-mutate", ".global-cache"];
/// Cargo's name for a folder beside the target directory, see the Cargo book on `build.build-dir`.
const BUILD_DIR: &str = "CARGO_BUILD_BUILD_DIR";
const CARGO_CREDENTIALS: [&str; 2] = ["credentials", "credentials.toml"];
/// What is said of the walls is shorter, in bytes.
const MAX_LINE: usize = 1 << 16;

/// What a build may see and change.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// Nothing where there are to be no walls.
    confinement: Option<Confinement>,
    variables: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Sandbox {
    /// Makes the sandbox of a build; `network` says whether it is to have that.
    pub(super) fn of(
        config: &Config,
        stage: BuildStage,
        network: bool,
    ) -> Result<Self, file::FileError> {
        let build = &config.build;
        let mut variables = build_environment::of_build(build, stage);
        if build.sandbox == BuildSandbox::Off {
            return Ok(Self {
                confinement: None,
                variables,
            });
        }
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let folder = |name: &str, usual: &str| {
            let told = variables.iter().find(|(known, _)| known == name);
            told.map_or_else(|| home.join(usual), |(_, told)| PathBuf::from(told))
        };
        let (cargo, rustup) = (
            folder("CARGO_HOME", ".cargo"),
            folder("RUSTUP_HOME", ".rustup"),
        );
        let parts = variables.iter().find(|(name, _)| name == BUILD_DIR);
        let parts = parts.map(|(_, told)| PathBuf::from(told));
        // Others are below the source, or begin with a placeholder of cargo's.
        let parts = parts.filter(|parts| parts.is_absolute());
        // Outside, it would be a folder that everybody shares.
        let scratch = scratch(build);
        file::create_dir(&scratch)?;
        let mut set = |name: &str, value: &Path| {
            variables.retain(|(known, _)| known != name);
            variables.push((name.into(), value.into()));
        };
        set("CARGO_HOME", &cargo);
        set("RUSTUP_HOME", &rustup);
        set("TMPDIR", &scratch);
        let mut writable = vec![build.target_dir.clone()];
        writable.extend(build.paths.iter().cloned());
        // Cargo keeps there what programs are made of, if the operator says so. It makes a folder that is
        // missing by way of one beside it, which it may not write.
        if let Some(parts) = parts {
            file::create_dir(&parts)?;
            writable.push(parts);
        }
        if stage == BuildStage::Fetch || network {
            for part in ["registry", "git"] {
                // Where it is not ours to write, everything may be vendored.
                let _ = file::create_dir(&cargo.join(part));
                writable.push(cargo.join(part));
            }
            // A toolchain that the commit asks for is installed.
            writable.push(rustup.clone());
        }
        if stage == BuildStage::Compile {
            // Programs that look for their settings there find none, instead of a wall.
            let empty = scratch.join("home");
            file::create_dir(&empty)?;
            set("HOME", &empty);
        }
        for name in CARGO_LOCKS {
            let lock = cargo.join(name);
            let _ = fs::File::options().append(true).create(true).open(&lock);
            writable.push(lock);
        }
        let hidden = hidden(config, &home);
        let mut readable = visible(config, &home, &hidden);
        readable.extend(entries_beside(
            &cargo,
            &CARGO_CREDENTIALS.map(|name| cargo.join(name)),
        ));
        readable.push(rustup);
        if stage == BuildStage::Fetch {
            // Proxies and addresses; no credentials.
            readable.extend([".gitconfig", ".config/git/config"].map(|file| home.join(file)));
        }
        Ok(Self {
            confinement: Some(Confinement {
                hidden,
                readable,
                writable,
                named: build_environment::named(build),
                devices: DEVICES.iter().map(PathBuf::from).chain(gpus()).collect(),
                network: network || build.keeps_network(),
            }),
            variables,
        })
    }

    /// Returns a command that starts a program behind the walls.
    pub(super) fn command(&self, program: &str) -> Command {
        if self.confinement.is_none() {
            return shared::process::blocking_command(program);
        }
        let mut command = shared::process::blocking_command(OWN_IMAGE);
        command.args([confine::SUBCOMMAND, "--", program]);
        command
    }

    /// Starts a command made by [`Sandbox::command`], and says which of the walls stand. What it prints has to be read.
    pub(super) fn spawn(
        &self,
        command: &mut Command,
        variables: &[(&str, &str)],
    ) -> io::Result<(Child, Vec<Wall>)> {
        command
            .env_clear()
            .envs(self.variables.iter().cloned())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped());
        let Some(confinement) = &self.confinement else {
            let off = |wall: &str| {
                (
                    wall.to_owned(),
                    Err("switched off by --build-sandbox".into()),
                )
            };
            return Ok((command.spawn()?, vec![off("files"), off("network")]));
        };
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Why it did not read is told below.
            let _ = stdin.write_all(&serde_json::to_vec(confinement)?);
        }
        match first_line(&mut child) {
            Ok(walls) => Ok((child, walls)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

/// Reads what the program that raises the walls says before it becomes the other one.
fn first_line(child: &mut Child) -> io::Result<Vec<Wall>> {
    let mut line = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        // No more than the line: the rest is the other program's.
        let mut byte = [0];
        while line.len() < MAX_LINE && stdout.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
    }
    serde_json::from_slice(&line).map_err(|_| {
        let mut text = String::new();
        if let Some(stderr) = &mut child.stderr {
            let _ = stderr.take(MAX_LINE as u64).read_to_string(&mut text);
        }
        let text = text.trim();
        io::Error::other(format!("the walls around it could not be raised: {text}"))
    })
}

/// Returns the folder of temporary files of builds.
pub(super) fn scratch(build: &BuildConfig) -> PathBuf {
    build.target_dir.join("tmp")
}

/// What build scripts ask for the kind of GPU.
fn gpus() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(ALL_DEVICES).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"nvidia"))
        .map(|entry| entry.path())
}

/// Says which walls stand on this machine, by raising them around a program that does nothing.
pub(crate) fn walls(config: &Config) -> Result<Vec<Wall>, String> {
    let sandbox =
        Sandbox::of(config, BuildStage::Compile, false).map_err(|error| error.to_string())?;
    let mut command = sandbox.command("true");
    let (child, walls) = sandbox
        .spawn(command.current_dir("/"), &[])
        .map_err(|error| format!("could not start `true`: {error}"))?;
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(walls)
    } else {
        Err(format!("`true` failed behind them ({})", output.status))
    }
}

//! The supervisor replaces itself in place: same process id, and the child never notices.
//!
//! Nothing is handed over in memory. The new image finds the child, its output, the journal and
//! the sockets where the old one left them, exactly as after a crash.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use shared::{Exit, Failure, file};

use crate::home::Home;

/// The running image of this very program, even when its file has been replaced.
pub(crate) const OWN_IMAGE: &str = "/proc/self/exe";

/// The name of our own program in a release.
pub(crate) const PROGRAM: &str = "supervisor";

/// Starts after which a supervisor that never reached its loop is given up.
const MAX_TRIES: u32 = 3;
const MAX_BYTES: u64 = 1 << 16;

/// How often a new supervisor was started without reaching its loop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The release it comes from.
    pub release: String,
    /// Starts since it last reached its loop.
    pub tries: u32,
    /// The process that became it.
    pub pid: u32,
}

impl Boot {
    pub fn read(home: &Home) -> Self {
        let bytes = file::read_limited(&home.boot(), MAX_BYTES).ok().flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Returns whether the supervisor of `release` has failed too often.
    pub fn given_up(&self, release: &str) -> bool {
        self.release == release && self.tries >= MAX_TRIES
    }

    fn count(mut self, home: &Home, release: &str) -> Result<(), Failure> {
        if self.release != release {
            self = Self {
                release: release.to_owned(),
                tries: 0,
                pid: 0,
            };
        }
        self.tries += 1;
        self.pid = std::process::id();
        let text = serde_json::to_vec(&self).unwrap_or_default();
        file::write_atomic_private(&home.boot(), &text)
            .map_err(|error| Failure::of(Exit::Machine, &error))
    }
}

/// Returns the release that this process was started from, if another supervisor became it.
pub(crate) fn identity(home: &Home) -> Option<String> {
    let boot = Boot::read(home);
    (boot.pid == std::process::id()).then_some(boot.release)
}

/// Says that the supervisor started as `identity` has reached its loop.
pub(crate) fn arrived(home: &Home, identity: Option<&str>) {
    if identity.is_some_and(|release| Boot::read(home).release == release) {
        let _ = fs::remove_file(home.boot());
    }
}

/// Returns the supervisor of the current release if it is another program than the running one
/// and has not been given up.
pub(crate) fn successor(home: &Home, identity: Option<&str>) -> Option<PathBuf> {
    let (path, release) = program(home)?;
    let same = identity == Some(release.as_str()) || same_content(&path);
    (!same && !Boot::read(home).given_up(&release)).then_some(path)
}

/// Becomes another program with our own arguments; returns only if that fails.
pub(crate) fn become_(path: &Path, home: &Home) -> Failure {
    let release = program(home)
        .map(|(_, release)| release)
        .unwrap_or_default();
    if let Err(failure) = Boot::read(home).count(home, &release) {
        return failure;
    }
    let mut command = shared::process::blocking_command(path);
    // The group stays: a terminal or a service manager knows us by it.
    command
        .args(std::env::args_os().skip(1))
        .process_group(nix::unistd::getpgrp().as_raw());
    let error = command.exec();
    Failure::new(
        Exit::Machine,
        format!("could not become {}", path.display()),
    )
    .caused_by(&error)
}

/// Replaces the executable that we were started from, unless it lies in a release anyway, so that
/// whoever starts it next starts the new one. Where that is not allowed, the next start becomes
/// the new one by itself.
pub(crate) fn replace_installed(home: &Home) {
    let (Some((new, _)), Ok(own)) = (program(home), std::env::current_exe()) else {
        return;
    };
    let inside = fs::canonicalize(home.releases()).is_ok_and(|releases| own.starts_with(releases));
    if !inside
        && !same_content(&new)
        && let Err(error) = self_replace::self_replace(&new)
    {
        tracing::info!(%error, program = %own.display(), "the installed supervisor stays");
    }
}

fn program(home: &Home) -> Option<(PathBuf, String)> {
    let folder = fs::canonicalize(home.current()).ok()?;
    let release = folder.file_name()?.to_str()?.to_owned();
    let path = folder.join(PROGRAM);
    path.is_file().then_some((path, release))
}

fn same_content(path: &Path) -> bool {
    let bytes = |path: &Path| fs::read(path).ok();
    let length = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
    let own = Path::new(OWN_IMAGE);
    length(own) == length(path) && bytes(own) == bytes(path)
}

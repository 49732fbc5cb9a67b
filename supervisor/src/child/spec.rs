//! What a child is started with: program, arguments, environment, limits.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use shared::{Exit, Failure, cgroup::ControlGroup, term};

use crate::{home::Home, self_update::OWN_IMAGE};

/// The environment variable by which a child left behind is recognized.
pub(crate) const MARKER: &str = shared::supervision::HOME;

/// The environment variable that tells from which release a child was started.
pub(crate) const RELEASE: &str = "SUPERVISOR_RELEASE";

/// The environment variable with the child's own process id. What the child starts inherits all three,
/// but has another process id.
pub(crate) const PROCESS: &str = "SUPERVISOR_CHILD_PID";

/// What a child is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// File name of the program inside a release.
    pub(crate) program: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) cwd: PathBuf,
    pub(crate) nice: u8,
    /// Longest silence between WATCHDOG=1 messages; zero for no watchdog.
    pub(crate) watchdog: Duration,
    /// Most memory it may use, in bytes.
    pub(crate) memory_max: Option<u64>,
}

impl Spec {
    /// Returns the command that starts the child of `release` in a control group, writing to `output`.
    pub(crate) fn command(
        &self,
        home: &Home,
        release: &str,
        group: Option<&Path>,
        output: &File,
    ) -> std::io::Result<Command> {
        let program = home.release(release).join(&self.program);
        let mut command = self.launcher(&program, group);
        command
            .args(&self.args)
            .current_dir(&self.cwd)
            .env(MARKER, home.path())
            .env(RELEASE, release)
            .env_remove(PROCESS)
            .env(shared::status::ENV, home.status())
            .env("NOTIFY_SOCKET", home.notify_socket())
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output.try_clone()?));
        if !self.watchdog.is_zero() {
            command.env("WATCHDOG_USEC", self.watchdog.as_micros().to_string());
        }
        Ok(command)
    }

    /// Starts the child by way of programs that set a mark or a limit and then become it.
    fn launcher(&self, program: &Path, group: Option<&Path>) -> Command {
        let mut command = shared::process::blocking_command(OWN_IMAGE);
        command.arg("launch");
        if let Some(group) = group {
            command.arg("--cgroup").arg(group);
        }
        if let Some(bytes) = self.memory_max {
            command.arg("--memory-max").arg(bytes.to_string());
        }
        command.arg("--");
        if self.nice > 0 {
            command.args(["nice", "-n", &self.nice.to_string()]);
        }
        command.arg(program);
        command
    }
}

/// Marks this process as the child itself, moves it into its control group, limits its memory, then becomes
/// the program named in `line`. The limit is on private memory (`RLIMIT_DATA`), because address space alone
/// says little where a GPU is mapped.
pub(crate) fn launch(
    group: Option<PathBuf>,
    memory_max: Option<u64>,
    line: &[OsString],
) -> Result<Exit, Failure> {
    // A child outside runs all the same, and `status` says so.
    if let Some(group) = group
        && let Err(error) = ControlGroup::at(group).join()
    {
        term::note(format_args!("no control group for the child: {error}"));
    }
    if let Some(bytes) = memory_max {
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes).map_err(|errno| {
            Failure::new(Exit::Machine, "could not limit the memory of the child").because(errno)
        })?;
    }
    let Some((program, args)) = line.split_first() else {
        return Err(Failure::new(Exit::Usage, "no program to launch"));
    };
    let mut command = shared::process::replacement(program);
    command
        .args(args)
        .env(PROCESS, std::process::id().to_string());
    let error = command.exec();
    // Said where the child's output goes. The supervisor tries again, as after any end of the child.
    let text = format!("could not start {}", program.display());
    Err(Failure::new(Exit::Machine, text)
        .because(&error)
        .hint("`supervisor doctor` looks whether the release is intact"))
}

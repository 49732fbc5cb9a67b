//! The start of the child: a process of our own program that becomes the child when it is told so.
//!
//! It can be started while the last child still ends, and then has all behind it that takes time: what is left of the
//! gap between two children is what the kernel takes to start a program in a control group. It bears no mark of a child
//! before it is one, so that it is not killed with what the last child left.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::Args;
use nix::{
    sys::{
        resource::{Resource, setrlimit},
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{ForkResult, Pid, setpgid},
};
use shared::{Exit, Failure, cgroup::ControlGroup, fork, term};

use super::{
    control::kill_group,
    spec::{MARKER, PROCESS, RELEASE, Spec},
};
use crate::{home::Home, self_update::OWN_IMAGE};

/// The subcommand of such a process.
pub(crate) const SUBCOMMAND: &str = "launch";

/// To become the child takes milliseconds; longer than this, and the disk hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A path is shorter than this, in bytes.
const MAX_PATH: u64 = 4096;

/// A process that waits to become the child of a release. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Launcher {
    pid: u32,
    release: String,
    /// Its standard input, which tells it the control group, and its standard output.
    line: UnixStream,
}

impl Launcher {
    /// Starts it for a child that writes to `output`.
    pub(crate) fn start(
        spec: &Spec,
        home: &Home,
        release: &str,
        output: &File,
    ) -> io::Result<Self> {
        let (line, end) = UnixStream::pair()?;
        line.set_read_timeout(Some(PATIENCE))?;
        let mut command = command(spec, home, release);
        command
            .stdin(Stdio::from(OwnedFd::from(end.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(end)))
            .stderr(Stdio::from(output.try_clone()?));
        Ok(Self {
            pid: command.spawn()?.id(),
            release: release.to_owned(),
            line,
        })
    }

    /// The release whose program it becomes.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// Lets it become the child, in a control group; returns the child's process id.
    pub(crate) fn launch(mut self, group: Option<&Path>) -> io::Result<u32> {
        let became = self.told(group);
        if became.is_err() {
            kill_group(self.pid);
        }
        became
    }

    fn told(&mut self, group: Option<&Path>) -> io::Result<u32> {
        let group = group.map_or(OsStr::new(""), Path::as_os_str);
        self.line.write_all(&[group.as_bytes(), b"\n"].concat())?;
        self.line.shutdown(Shutdown::Write)?;
        let mut pid = String::new();
        self.line.read_to_string(&mut pid)?;
        if let Ok(pid) = pid.trim_end().parse() {
            return Ok(pid);
        }
        // It is the child itself, or has ended so long ago that nobody would be told again.
        let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(Pid::from_raw(self.pid.cast_signed())), how)?;
        Ok(self.pid)
    }
}

fn command(spec: &Spec, home: &Home, release: &str) -> Command {
    let mut command = shared::process::blocking_command(OWN_IMAGE);
    command.arg(SUBCOMMAND);
    command.arg("--home").arg(home.path());
    command.arg("--release").arg(release);
    if let Some(bytes) = spec.memory_max {
        command.arg("--memory-max").arg(bytes.to_string());
    }
    command.arg("--");
    if spec.nice > 0 {
        command.args(["nice", "-n", &spec.nice.to_string()]);
    }
    command
        .arg(home.release(release).join(&spec.program))
        .args(&spec.args)
        .current_dir(&spec.cwd)
        .env(shared::status::ENV, home.status())
        .env("NOTIFY_SOCKET", home.notify_socket());
    for name in [MARKER, RELEASE, PROCESS, "WATCHDOG_PID", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    if !spec.watchdog.is_zero() {
        command.env("WATCHDOG_USEC", spec.watchdog.as_micros().to_string());
    }
    command
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LaunchArgs {
    /// Folder of the state of this child
    #[arg(long)]
    home: PathBuf,
    /// Release that the child comes from
    #[arg(long)]
    release: String,
    /// Bytes
    #[arg(long)]
    memory_max: Option<u64>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    line: Vec<OsString>,
}

/// Waits for the word, then becomes the child, or has a copy of this process become it in the control group. The limit
/// is on private memory (`RLIMIT_DATA`), because address space alone says little where a GPU is mapped. Standard output
/// is where a copy's process id is told; the child's is standard error.
pub(crate) fn launch(args: &LaunchArgs) -> Result<Exit, Failure> {
    let mut told = Vec::new();
    let heard = io::stdin().take(MAX_PATH).read_to_end(&mut told);
    let Some(group) = heard.ok().and_then(|_| told.strip_suffix(b"\n")) else {
        // No child is wanted any more, by whoever started this.
        return Ok(Exit::Ok);
    };
    // A child outside runs all the same, and `status` says so.
    if !group.is_empty()
        && let Err(error) = enter(&ControlGroup::at(OsStr::from_bytes(group).into()))
    {
        term::note(format_args!("no control group for the child: {error}"));
    }
    if let Some(bytes) = args.memory_max {
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes).map_err(|errno| {
            Failure::new(Exit::Machine, "could not limit the memory of the child").caused_by(&errno)
        })?;
    }
    let Some((program, rest)) = args.line.split_first() else {
        return Err(Failure::new(Exit::Usage, "no program to launch"));
    };
    let output = io::stderr().as_fd().try_clone_to_owned().map_err(|error| {
        Failure::new(Exit::Machine, "could not give the child its output").caused_by(&error)
    })?;
    let error = shared::process::replacement(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(output)
        .env(MARKER, &args.home)
        .env(RELEASE, &args.release)
        .env(PROCESS, std::process::id().to_string())
        .exec();
    // Said where the child's output goes. The supervisor tries again, as after any end of the child.
    let text = format!("could not start {}", program.display());
    Err(Failure::new(Exit::Machine, text)
        .caused_by(&error)
        .hint("`supervisor doctor` looks whether the release is intact"))
}

/// Goes on in a control group: as a copy where the kernel can do that, by moving there otherwise.
fn enter(group: &ControlGroup) -> io::Result<()> {
    match group.fork_into() {
        // The leader of its group, as the first process is of its own.
        Ok(ForkResult::Child) => Ok(setpgid(Pid::from_raw(0), Pid::from_raw(0))?),
        Ok(ForkResult::Parent { child }) => match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            // By the kernel, before it was anything.
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => group.join(),
            WaitStatus::StillAlive => {
                // Nobody listens any more where the supervisor was killed.
                let _ = write!(io::stdout(), "{child}").and_then(|()| io::stdout().flush());
                fork::end(0);
            }
            // What would have been the child and said why not.
            ended => fork::follow(Ok(ended)),
        },
        Err(_) => group.join(),
    }
}

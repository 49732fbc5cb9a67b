//! Exit codes: a contract with operators, scripts and the supervisor.

use std::process::{ExitCode, Termination};

/// How a program ended. The numbers never change; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// The thing asked for failed, and no more precise code fits.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The input was judged and refused (a model that lies, a record that was tampered with).
    Refused = 3,
    /// An input file is unreadable or malformed.
    BadInput = 65,
    /// A bug of ours: please report it.
    Bug = 70,
    /// This machine is at fault: disk full, GPU lost, out of memory.
    Machine = 74,
    /// Something outside is at fault (hub, chain, remote): try again later.
    TryLater = 75,
    /// Not allowed: another instance holds the lock, or a file's permissions forbid it.
    Denied = 77,
    /// The configuration is wrong: restarting will not help until it is changed.
    Config = 78,
    /// Stopped by Ctrl-C before the work was done.
    Interrupted = 130,
}

impl Exit {
    /// Every code with its meaning, for `--help` and the documentation.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Ok, "all went well"),
        (Self::Failed, "the thing asked for failed"),
        (Self::Usage, "the command line is wrong"),
        (Self::Refused, "judged and refused"),
        (Self::BadInput, "an input file is unreadable or malformed"),
        (Self::Bug, "a bug of ours: please report it"),
        (
            Self::Machine,
            "this machine is at fault (disk, memory, GPU)",
        ),
        (
            Self::TryLater,
            "something outside is at fault (hub, chain, remote); try again later",
        ),
        (
            Self::Denied,
            "another instance holds the lock, or permissions forbid it",
        ),
        (
            Self::Config,
            "the configuration is wrong; restarting will not help",
        ),
        (
            Self::Interrupted,
            "stopped by Ctrl-C before the work was done",
        ),
    ];

    /// Returns the number the process exits with.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

//! What a child is started with: program, arguments, environment, limits.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

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

//! Where the supervisor of one child keeps its things.

use std::path::{Path, PathBuf};

/// The folder of one child name under the state directory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Returns the folder of `child_name` under `state_dir`.
    pub fn of(state_dir: &Path, child_name: &str) -> Self {
        Self {
            path: state_dir.join(child_name),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn child_name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Held by the running supervisor.
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.json")
    }

    /// What happened, one JSON object a line.
    pub fn history(&self) -> PathBuf {
        self.path.join("history.jsonl")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.path.join(shared::supervision::CONTROL_SOCKET)
    }

    /// The sd_notify socket of the child.
    pub fn notify_socket(&self) -> PathBuf {
        self.path.join("notify.sock")
    }

    /// The named pipe the child writes its output to.
    pub fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// The folder of logs, unless the configuration names another.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The child's log in it.
    pub(crate) fn child_log(&self) -> PathBuf {
        self.logs().join(format!("{}.log", self.child_name()))
    }

    pub fn status(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// Our own clone and worktree.
    pub fn source(&self) -> PathBuf {
        self.path.join("source")
    }

    pub fn target(&self) -> PathBuf {
        self.path.join("target")
    }

    /// How often the new supervisor was tried.
    pub fn boot(&self) -> PathBuf {
        self.path.join("boot.json")
    }

    pub fn releases(&self) -> PathBuf {
        self.path.join("releases")
    }

    /// The folder of one release.
    pub fn release(&self, release: &str) -> PathBuf {
        self.releases().join(release)
    }

    /// The link to the release that runs.
    pub fn current(&self) -> PathBuf {
        self.path.join("current")
    }

    /// The link to the release that ran before.
    pub fn previous(&self) -> PathBuf {
        self.path.join("previous")
    }
}

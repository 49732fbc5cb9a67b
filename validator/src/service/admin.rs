//! The admin task: keeps the status file and the metrics true, from the first second on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use shared::{Failure, causes, file, shutdown::Shutdown};
use tokio::time::{sleep, timeout};

use super::Settings;
use report::{
    board::Board,
    meters::Meters,
    metrics,
    status::{self, Status},
};

/// The status file, in the folder of the state.
pub const STATUS: &str = "status.json";

pub const METRICS: &str = "metrics.prom";

/// The file is renewed at least this often while we live.
pub(super) const EVERY: Duration = Duration::from_secs(15);

/// Changes that come close together are written once.
const CALM: Duration = Duration::from_millis(200);

/// Writes what the board says.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    board: Board,
    meters: Meters,
    version: String,
    /// Our own file, and the one the supervisor asked for.
    files: Vec<PathBuf>,
    metrics: PathBuf,
    shutdown: Shutdown,
}

/// Returns the status that the process before this one left.
pub(super) fn left_behind(folder: &Path) -> Option<Status> {
    status::read(&folder.join(STATUS))
        .inspect_err(|error| {
            tracing::warn!(
                error = causes::one_line(error),
                "ignoring the status left behind"
            );
        })
        .ok()
        .flatten()
}

impl Admin {
    pub(super) fn new(
        settings: &Settings,
        board: Board,
        meters: Meters,
        shutdown: Shutdown,
    ) -> Self {
        let own = settings.folder.join(STATUS);
        Self {
            board,
            meters,
            version: settings.version.clone(),
            files: settings.status_file.iter().cloned().chain([own]).collect(),
            metrics: settings.folder.join(METRICS),
            shutdown,
        }
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut changes = self.board.subscribe();
        loop {
            self.write();
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = sleep(CALM) => {}
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                // Closed or quiet, it is time to write again.
                _ = timeout(EVERY, changes.changed()) => {}
            }
        }
    }

    pub(super) fn write(&self) {
        let status = self.board.status(&self.version, EVERY);
        for path in &self.files {
            if let Err(error) = status.write(path) {
                let error = causes::one_line(&error);
                tracing::warn!(path = %path.display(), error, "could not write the status");
            }
        }
        let metrics = metrics::render(&status, &self.meters);
        if let Err(error) = file::write_atomic(&self.metrics, metrics.as_bytes()) {
            tracing::warn!(
                error = causes::one_line(&error),
                "could not write the metrics"
            );
        }
    }
}

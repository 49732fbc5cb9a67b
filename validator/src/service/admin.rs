//! The admin task: keeps the status file and the metrics true, from the first second on.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
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
    /// Held from the look at the board to the end of the writing: what was seen first is written
    /// first, and the last word of a run stands.
    writing: Arc<Mutex<()>>,
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
            writing: Arc::default(),
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
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    };

    use report::status::{Activity, Details};

    use super::*;

    #[test]
    fn the_last_word_of_a_run_stands() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(STATUS);
        for _ in 0..50 {
            let (board, _alarms) = Board::new(Details::default());
            let admin = Admin {
                board: board.clone(),
                meters: Meters::default(),
                version: "0".to_owned(),
                files: vec![own.clone()],
                metrics: folder.path().join(METRICS),
                shutdown: Shutdown::new(),
                writing: Arc::default(),
            };
            let stop = AtomicBool::new(false);
            let began = Barrier::new(5);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        began.wait();
                        while !stop.load(Ordering::Relaxed) {
                            admin.write();
                        }
                    });
                }
                began.wait();
                admin.write();
                // Somebody is in the middle of writing what was before.
                stop.store(true, Ordering::Relaxed);
                board.ended(None);
                admin.write();
            });
            let written = status::read(&own).unwrap().unwrap();
            assert_eq!(written.details.activity, Activity::Stopped);
        }
    }
}

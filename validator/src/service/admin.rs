//! The admin task: keeps the status file and the metrics true.

use std::{sync::Arc, time::Duration};

use shared::{Failure, file};
use tokio::time::{sleep, timeout};

use super::Parts;
use report::metrics;

/// The status file, in the folder of the state.
pub const STATUS: &str = "status.json";

/// The same for Prometheus.
const METRICS: &str = "metrics.prom";

/// The file is never older than this while we live.
const EVERY: Duration = Duration::from_secs(15);

/// Changes that come close together are written once.
const CALM: Duration = Duration::from_millis(200);

pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    let mut changes = parts.context.board.subscribe();
    loop {
        write(&parts);
        tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            () = sleep(CALM) => {}
        }
        tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            // Closed or quiet, it is time to write again.
            _ = timeout(EVERY, changes.changed()) => {}
        }
    }
}

/// Writes the status file, and the one the supervisor asked for.
pub(super) fn write(parts: &Parts) {
    let status = parts.context.board.status(&parts.settings.version);
    let own = parts.settings.folder.join(STATUS);
    for path in parts.settings.status_file.iter().chain([&own]) {
        if let Err(error) = status.write(path) {
            tracing::warn!(path = %path.display(), %error, "could not write the status");
        }
    }
    let path = parts.settings.folder.join(METRICS);
    if let Err(error) = file::write_atomic(&path, metrics::render(&status).as_bytes()) {
        tracing::warn!(%error, "could not write the metrics");
    }
}

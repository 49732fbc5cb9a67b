//! The asynchronous runtime that commands run in.

use std::{future::Future, time::Duration};

use shared::{Exit, Failure};

/// How long work on threads of its own may go on after the command has ended.
const BLOCKING: Duration = Duration::from_secs(5);

/// Runs an asynchronous command to its end.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Machine, "could not start the async runtime").caused_by(&error)
        })?;
    let outcome = runtime.block_on(command);
    // Dropping it would wait for what blocks, for ever if a disk hangs; all that matters is written whole or not at all.
    runtime.shutdown_timeout(BLOCKING);
    outcome
}

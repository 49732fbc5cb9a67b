//! The asynchronous runtime that commands run in.

use std::future::Future;

use shared::{Exit, Failure};

/// Runs an asynchronous command to its end.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Machine, "could not start the async runtime").because(error)
        })?
        .block_on(command)
}

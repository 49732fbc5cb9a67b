//! Named, owned tasks: each has an owner that learns of its end; a panic is never lost.

use std::{collections::BTreeMap, future::Future};

use tokio::task::{Id, JoinSet};

use crate::failure::Failure;

/// The tasks of one owner. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct TaskSet {
    set: JoinSet<Result<(), Failure>>,
    names: BTreeMap<Id, &'static str>,
}

#[derive(Debug)]
pub enum Ended {
    Finished(Result<(), Failure>),
    /// It was aborted by us.
    Aborted,
    /// It panicked, with this message: a bug.
    Panicked(String),
}

impl TaskSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task under a name.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end; `None` when there is none left.
    pub async fn next(&mut self) -> Option<(&'static str, Ended)> {
        let (id, ended) = match self.set.join_next_with_id().await? {
            Ok((id, result)) => (id, Ended::Finished(result)),
            Err(error) if error.is_cancelled() => (error.id(), Ended::Aborted),
            Err(error) => {
                let id = error.id();
                (id, Ended::Panicked(panic_message(&*error.into_panic())))
            }
        };
        Some((self.names.remove(&id).unwrap_or("unnamed"), ended))
    }

    /// Returns the names of the tasks still running.
    pub fn running(&self) -> Vec<&'static str> {
        self.names.values().copied().collect()
    }

    /// Aborts all tasks; [`TaskSet::next`] still reports each.
    pub fn abort_all(&mut self) {
        self.set.abort_all();
    }
}

/// Returns what a panic said.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

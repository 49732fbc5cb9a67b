//! What tasks tell each other, besides blocks and snapshots: see the diagram in [`super`].

use shared::shutdown::Shutdown;
use tokio::sync::{Notify, watch};

/// Who is woken by what.
#[derive(Debug)]
pub(super) struct Wakeups {
    /// Model sync tells the step loop that a model was verified or refused.
    pub(super) news: Notify,
    /// Whether model sync is looking at commitments: the step loop waits for models to arrive
    /// together.
    pub(super) syncing: watch::Sender<bool>,
    /// The step loop tells the cleaner that a step was completed.
    pub(super) completed: Notify,
    /// Everybody is told to stop.
    pub(super) shutdown: Shutdown,
}

impl Wakeups {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            news: Notify::new(),
            syncing: watch::Sender::new(true),
            completed: Notify::new(),
            shutdown,
        }
    }
}

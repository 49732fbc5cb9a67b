//! Stopping: the first SIGTERM, SIGINT or SIGHUP-less request asks to drain, the second stops now.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How urgently we are asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    No,
    /// Finish or give up what is in flight, by a deadline.
    Drain,
    Now,
}

/// Tells every task when to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    receiver: watch::Receiver<Stop>,
    sender: watch::Sender<Stop>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Makes one that only [`Shutdown::request`] triggers.
    pub fn new() -> Self {
        let (sender, receiver) = watch::channel(Stop::No);
        Self { receiver, sender }
    }

    /// Raises the urgency to `stop`; it never falls.
    pub fn request(&self, stop: Stop) {
        self.sender.send_if_modified(|now| {
            let raised = stop > *now;
            *now = stop.max(*now);
            raised
        });
    }

    /// Returns the urgency at this moment.
    pub fn state(&self) -> Stop {
        *self.receiver.borrow()
    }

    /// Returns whether any stop was requested.
    pub fn is_requested(&self) -> bool {
        self.state() > Stop::No
    }

    /// Waits until a stop is requested.
    pub async fn requested(&self) {
        self.reached(Stop::Drain).await;
    }

    /// Waits until the urgency is at least `stop`.
    pub async fn reached(&self, stop: Stop) {
        // The sender lives in `self`, so the channel can't close while we wait.
        let _ = self.receiver.clone().wait_for(|now| *now >= stop).await;
    }

    /// Listens for SIGTERM and SIGINT: the first asks to drain, any later one to stop now. The
    /// future never ends; run it as a task.
    pub async fn listen(self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            let next = if self.is_requested() {
                Stop::Now
            } else {
                Stop::Drain
            };
            tracing::info!(signal = name, ?next, "stopping");
            self.request(next);
        }
    }
}

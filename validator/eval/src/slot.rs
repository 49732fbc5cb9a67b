//! The place of a worker: at one device, or at several that work together.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::{ContentHash, Fault};
use tokio::{sync, time::Instant};

use super::{
    observer::{LossReason, WorkerObserver},
    worker::{Options, Worker},
};

/// The first pause before a worker that could not be started is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How many models a device is remembered to have met.
const REMEMBERED: usize = 16;

/// A device, or several at once, and the worker there.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) device: String,
    pub(super) state: sync::Mutex<SlotState>,
    /// The models this device met last, which it may still hold.
    met: Mutex<Vec<ContentHash>>,
}

#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// The idle worker. While it is asked something it is taken out, so that a request dropped
    /// half-way takes its worker along.
    pub(super) worker: Option<Worker>,
    /// Why the worker that was taken out is lost, should it not come back.
    pub(super) lost: Option<LossReason>,
    /// The device by its own name, once a worker said hello.
    id: Option<String>,
    /// The GPU that `auto` found: a worker that takes its place computes there or not at all, since on the CPU
    /// a step takes hours and losses have other bits.
    found: Option<String>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl SlotState {
    /// Takes back a worker that is well.
    pub(super) fn keep(&mut self, worker: Worker) {
        self.lost = None;
        self.worker = Some(worker);
    }

    pub(super) fn device(&self, slot: &Slot) -> String {
        self.id.as_ref().unwrap_or(&slot.device).clone()
    }
}

impl Slot {
    pub(super) fn new(device: String) -> Self {
        Self {
            device,
            state: sync::Mutex::default(),
            met: Mutex::default(),
        }
    }

    /// Ends the worker, if there is one. What it had loaded is gone; which models it met is not forgotten.
    pub(super) async fn shut_down(&self) {
        if let Some(worker) = self.state.lock().await.worker.take() {
            worker.shut_down().await;
        }
    }

    pub(super) fn has_met(&self, hash: ContentHash) -> bool {
        self.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&hash)
    }

    pub(super) fn remember(&self, hash: Option<ContentHash>) {
        let Some(hash) = hash else { return };
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|known| *known != hash);
        met.insert(0, hash);
        met.truncate(REMEMBERED);
    }

    /// What the device held is gone with its worker.
    pub(super) fn forget(&self) {
        self.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Takes the worker, or starts one, after a pause if the last start failed.
    pub(super) async fn worker(
        &self,
        state: &mut SlotState,
        options: &Options,
        observer: Option<&dyn WorkerObserver>,
    ) -> Result<Worker, Fault> {
        if let Some(worker) = state.worker.take() {
            // Whoever drops the request drops it.
            state.lost = Some(LossReason::GivenUp);
            return Ok(worker);
        }
        if let Some(why) = state.lost.take()
            && let Some(observer) = observer
        {
            observer.replaced(&state.device(self), why);
        }
        if let Some(not_before) = state.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let device = state.found.as_deref().unwrap_or(&self.device);
        let started = Worker::start(options, device).await;
        match &started {
            Ok(worker) => {
                (state.pause, state.not_before) = (Duration::ZERO, None);
                state.lost = Some(LossReason::GivenUp);
                let hello = worker.hello();
                let found = hello.device.as_ref().ok();
                state.id = found.map(|device| device.id.clone());
                let gpu = found.filter(|device| device.memory.is_some());
                if let Some(gpu) = gpu {
                    state.found = Some(gpu.id.clone());
                }
                tracing::info!(
                    device = self.device,
                    release = hello.release,
                    "eval-worker ready"
                );
                if let Some(why) = &hello.unused_gpu {
                    tracing::error!(
                        "this machine has a GPU and computes on its CPU: {why}; `validator check` says more"
                    );
                }
                for wall in &hello.sandbox {
                    match &wall.stands {
                        Ok(how) => tracing::info!(wall = wall.name, how, "sandbox"),
                        Err(why) => tracing::warn!(wall = wall.name, why, "no sandbox"),
                    }
                }
            }
            Err(fault) => {
                state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                state.not_before = Some(Instant::now() + state.pause);
                tracing::warn!(device = self.device, %fault, "no eval-worker");
            }
        }
        started
    }
}

//! The workers of all devices: who gets which request, and what follows when one is lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{
    ContentHash, Fault, MachineFaultKind, TokenizedSample,
    protocol::{
        Answer, Compare, DeviceMemory, Evaluate, Generate, Generation, Hello, Request, SelfTest,
        Tokenize,
    },
};
use tokio::{sync, time::Instant};

use super::{
    EvalOutcome, OnProgress,
    batches::batches,
    limits::TimeLimits,
    observer::{LossReason, WorkerObserver},
    worker::{Options, RequestEnd, Worker},
};

/// The first pause before a worker that could not be started is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A self-test takes well below a second, once the device is awake.
const SELF_TEST: TimeLimits = TimeLimits {
    total: Duration::from_mins(1),
    idle: Duration::from_mins(1),
};

/// How many models a device is remembered to have met.
const REMEMBERED: usize = 16;

/// How the start of a worker went.
#[derive(Debug)]
pub struct Started {
    /// The device as it was configured.
    pub device: String,
    /// What the worker said of itself.
    pub hello: Result<Hello, Fault>,
    /// Its process, while it runs.
    pub process: Option<u32>,
}

/// Evaluates models in worker processes, one for each device. Requests wait for a free one.
#[derive(Debug)]
pub struct Evaluator {
    options: Options,
    slots: Vec<Slot>,
    free: sync::Semaphore,
    observer: Option<Arc<dyn WorkerObserver>>,
}

#[derive(Debug)]
struct Slot {
    device: String,
    state: sync::Mutex<SlotState>,
    /// The models this device met last, which it may still hold.
    met: Mutex<Vec<ContentHash>>,
}

#[derive(Debug, Default)]
struct SlotState {
    /// The idle worker. While it is asked something it is taken out, so that a request dropped
    /// half-way takes its worker along.
    worker: Option<Worker>,
    /// Why the worker that was taken out is lost, should it not come back.
    lost: Option<LossReason>,
    /// The device by its own name, once a worker said hello.
    id: Option<String>,
    /// The GPU that `auto` found: a worker that takes its place computes there or not at all, since on the CPU
    /// a step takes hours and losses have other bits.
    found: Option<String>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Evaluator {
    /// Makes one. Workers start when they are first needed; without a device there is one, that
    /// looks for itself.
    pub fn new(mut options: Options) -> Self {
        if options.devices.is_empty() {
            options.devices.push("auto".to_owned());
        }
        let slots: Vec<Slot> = options
            .devices
            .iter()
            .map(|device| Slot {
                device: device.clone(),
                state: sync::Mutex::default(),
                met: Mutex::default(),
            })
            .collect();
        let free = sync::Semaphore::new(slots.len());
        Self {
            options,
            slots,
            free,
            observer: None,
        }
    }

    /// Tells this observer what becomes of the workers.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn WorkerObserver>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// Returns how many requests can be worked on at once: the number of devices.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// Starts all workers, and says how that went.
    pub async fn start(&self) -> Vec<Started> {
        let mut started = Vec::new();
        for slot in &self.slots {
            let mut state = slot.state.lock().await;
            let worker = self.worker(slot, &mut state).await;
            let process = worker.as_ref().ok().and_then(Worker::process);
            let hello = worker.map(|worker| {
                let hello = worker.hello().clone();
                state.keep(worker);
                hello
            });
            started.push(Started {
                device: slot.device.clone(),
                hello,
                process,
            });
        }
        started
    }

    /// Tests every device with a tiny built-in model.
    pub async fn self_test(&self) -> Vec<(String, Result<SelfTest, Fault>)> {
        let mut tested = Vec::new();
        for slot in &self.slots {
            let mut state = slot.state.lock().await;
            tested.push((slot.device.clone(), self.test(slot, &mut state).await));
        }
        tested
    }

    /// Tokenizes conversations, in order; many long ones in several requests.
    pub async fn tokenize(
        &self,
        request: Tokenize,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<TokenizedSample>, Fault> {
        let deadline = Instant::now() + limits.total;
        let mut all = Vec::with_capacity(request.conversations.len());
        for conversations in batches(&request.conversations) {
            let request = Tokenize {
                conversations: conversations.to_vec(),
                ..request.clone()
            };
            let limits = TimeLimits {
                total: deadline.saturating_duration_since(Instant::now()),
                ..limits
            };
            let wanted = request.conversations.len();
            match self
                .ask(Request::Tokenize(request), None, limits, on_progress)
                .await?
            {
                Answer::Tokenized(samples) if samples.len() == wanted => all.extend(samples),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(all)
    }

    /// Computes the losses of a model.
    pub async fn evaluate(
        &self,
        request: Evaluate,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> EvalOutcome {
        let samples = request.samples.len();
        let hash = request.model.content_hash;
        match self
            .ask(Request::Evaluate(request), hash, limits, on_progress)
            .await?
        {
            Answer::Evaluated(evaluation) if evaluation.losses.len() == samples => Ok(*evaluation),
            other => Err(unexpected(&other)),
        }
    }

    /// Computes losses with the independent implementation; says what of a model that leaves out.
    pub async fn compare(
        &self,
        request: Compare,
        patience: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Result<Vec<f64>, String>, Fault> {
        let hash = request.model.content_hash;
        match self
            .ask(Request::Compare(request), hash, patience, on_progress)
            .await?
        {
            Answer::Compared(compared) => Ok(compared),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets a model answer a prompt.
    pub async fn generate(
        &self,
        request: Generate,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Generation, Fault> {
        let hash = request.model.content_hash;
        match self
            .ask(Request::Generate(request), hash, limits, on_progress)
            .await?
        {
            Answer::Generated(generation) => Ok(generation),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks all workers to end, and kills those that do not.
    pub async fn shut_down(&self) {
        for slot in &self.slots {
            if let Some(worker) = slot.state.lock().await.worker.take() {
                worker.shut_down().await;
            }
        }
    }

    async fn ask(
        &self,
        request: Request,
        hash: Option<ContentHash>,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Answer, Fault> {
        let _permit = self
            .free
            .acquire()
            .await
            .map_err(|closed| Fault::machine(MachineFaultKind::Bug, closed))?;
        let (slot, mut state) = self.free_slot(hash).await;
        let mut worker = self.worker(slot, &mut state).await?;
        let device = state.device(slot);
        let on_memory = |memory| self.told(&device, memory);
        match worker.ask(&request, limits, on_progress, &on_memory).await {
            RequestEnd::Answered(answer) => {
                // A device that failed once may go on failing until its process is gone.
                let lost = matches!(&answer, Err(Fault::Machine(fault))
                    if !matches!(fault.kind, MachineFaultKind::Storage | MachineFaultKind::TooLarge));
                if !lost {
                    state.keep(worker);
                    slot.remember(hash);
                    return answer;
                }
                worker.shut_down().await;
                let Err(fault) = answer else { return answer };
                Err(self.attributed(slot, &mut state, fault).await)
            }
            RequestEnd::Lost(fault) => {
                drop(worker);
                Err(self.attributed(slot, &mut state, fault).await)
            }
        }
    }

    /// Tests the machine before a model comes under suspicion.
    async fn attributed(&self, slot: &Slot, state: &mut SlotState, fault: Fault) -> Fault {
        slot.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        tracing::warn!(device = slot.device, %fault, "an eval-worker was lost");
        state.lost = Some(LossReason::of(&fault));
        match self.test(slot, state).await {
            Ok(_) => fault,
            Err(test) => {
                let text = format!("{fault}; then the self-test failed: {test}");
                Fault::machine(MachineFaultKind::Device, text)
            }
        }
    }

    async fn test(&self, slot: &Slot, state: &mut SlotState) -> Result<SelfTest, Fault> {
        let mut worker = self.worker(slot, state).await?;
        let device = state.device(slot);
        let on_memory = |memory| self.told(&device, memory);
        let asked = worker.ask(&Request::SelfTest, SELF_TEST, &|_| {}, &on_memory);
        let fault = match asked.await {
            RequestEnd::Answered(Ok(Answer::SelfTest(passed))) => {
                state.keep(worker);
                return Ok(passed);
            }
            RequestEnd::Answered(Ok(other)) => unexpected(&other),
            RequestEnd::Answered(Err(fault)) | RequestEnd::Lost(fault) => fault,
        };
        state.lost = Some(LossReason::of(&fault));
        Err(fault)
    }

    fn told(&self, device: &str, memory: DeviceMemory) {
        if let Some(observer) = &self.observer {
            observer.memory(device, memory);
        }
    }

    /// Returns a slot nobody uses, if possible one that met this model before.
    async fn free_slot(
        &self,
        hash: Option<ContentHash>,
    ) -> (&Slot, sync::MutexGuard<'_, SlotState>) {
        let free = |slot: &&Slot| slot.state.try_lock().is_ok();
        let free: Vec<&Slot> = self.slots.iter().filter(free).collect();
        let slot = free
            .iter()
            .find(|slot| hash.is_some_and(|hash| slot.has_met(hash)))
            .or(free.first())
            .map_or(&self.slots[0], |slot| slot);
        (slot, slot.state.lock().await)
    }

    /// Takes the worker of a slot, or starts one, after a pause if the last start failed.
    async fn worker(&self, slot: &Slot, state: &mut SlotState) -> Result<Worker, Fault> {
        if let Some(worker) = state.worker.take() {
            // Whoever drops the request drops it.
            state.lost = Some(LossReason::GivenUp);
            return Ok(worker);
        }
        if let Some(why) = state.lost.take()
            && let Some(observer) = &self.observer
        {
            observer.replaced(&state.device(slot), why);
        }
        if let Some(not_before) = state.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let device = state.found.as_deref().unwrap_or(&slot.device);
        let started = Worker::start(&self.options, device).await;
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
                    device = slot.device,
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
                tracing::warn!(device = slot.device, %fault, "no eval-worker");
            }
        }
        started
    }
}

impl SlotState {
    /// Takes back a worker that is well.
    fn keep(&mut self, worker: Worker) {
        self.lost = None;
        self.worker = Some(worker);
    }

    fn device(&self, slot: &Slot) -> String {
        self.id.as_ref().unwrap_or(&slot.device).clone()
    }
}

impl Slot {
    fn has_met(&self, hash: ContentHash) -> bool {
        self.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&hash)
    }

    fn remember(&self, hash: Option<ContentHash>) {
        let Some(hash) = hash else { return };
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|known| *known != hash);
        met.insert(0, hash);
        met.truncate(REMEMBERED);
    }
}

fn unexpected(answer: &Answer) -> Fault {
    let text: String = format!("unexpected answer {answer:?}")
        .chars()
        .take(200)
        .collect();
    Fault::machine(MachineFaultKind::Protocol, text)
}

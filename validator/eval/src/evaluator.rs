//! The workers of all devices: who gets which request, and what follows when one is lost.

use std::{sync::Arc, time::Duration};

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
    observer::{AtWork, LossReason, WorkerObserver},
    slot::{Slot, SlotState},
    worker::{Options, RequestEnd, Worker},
};

/// A self-test takes well below a second, once the device is awake.
const SELF_TEST: TimeLimits = TimeLimits {
    total: Duration::from_mins(1),
    idle: Duration::from_mins(1),
};

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
///
/// Several GPUs are several workers as long as each model fits one: nothing is loaded twice, and nobody waits for
/// anybody. For a model that doesn't, all of them make room for one worker that has all GPUs.
#[derive(Debug)]
pub struct Evaluator {
    options: Options,
    slots: Vec<Slot>,
    free: sync::Semaphore,
    /// All GPUs at once, where there are several. In use only by who holds all of `free`.
    joint: Option<Slot>,
    observer: Option<Arc<dyn WorkerObserver>>,
}

impl Evaluator {
    /// Makes one. Workers start when they are first needed; without a device there is one, that
    /// looks for itself.
    pub fn new(mut options: Options) -> Self {
        if options.devices.is_empty() {
            options.devices.push("auto".to_owned());
        }
        let are_gpus = options.devices.iter().all(|name| name.starts_with("cuda:"));
        let all = (are_gpus && options.devices.len() > 1).then(|| options.devices.join(","));
        let (slots, joint) = match all {
            Some(all) if options.together => (vec![Slot::new(all)], None),
            all => {
                let each = options.devices.iter().cloned().map(Slot::new);
                (each.collect(), all.map(Slot::new))
            }
        };
        let free = sync::Semaphore::new(slots.len());
        Self {
            options,
            slots,
            free,
            joint,
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
        for slot in self.slots.iter().chain(&self.joint) {
            slot.shut_down().await;
        }
    }

    async fn ask(
        &self,
        request: Request,
        hash: Option<ContentHash>,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Answer, Fault> {
        // Text takes no GPU, whatever memory it takes.
        let joint = self.joint.as_ref();
        let Some(joint) = joint.filter(|_| !matches!(request, Request::Tokenize(_))) else {
            return self.ask_one(&request, hash, limits, on_progress).await;
        };
        if !hash.is_some_and(|hash| joint.has_met(hash)) {
            let answer = self.ask_one(&request, hash, limits, on_progress).await;
            match &answer {
                Err(fault) if is_too_large(fault) => {
                    tracing::info!(%fault, devices = joint.device, "all GPUs together try it");
                }
                _ => return answer,
            }
        }
        let _all = self.permits(self.slots.len()).await?;
        for slot in &self.slots {
            slot.shut_down().await;
        }
        let mut state = joint.state.lock().await;
        self.ask_of(joint, &mut state, &request, hash, (limits, on_progress))
            .await
    }

    /// Asks the worker of one device.
    async fn ask_one(
        &self,
        request: &Request,
        hash: Option<ContentHash>,
        limits: TimeLimits,
        on_progress: OnProgress<'_>,
    ) -> Result<Answer, Fault> {
        let _permit = self.permits(1).await?;
        if let Some(joint) = &self.joint {
            joint.shut_down().await;
        }
        let (slot, mut state) = self.free_slot(hash).await;
        self.ask_of(slot, &mut state, request, hash, (limits, on_progress))
            .await
    }

    async fn permits(&self, count: usize) -> Result<sync::SemaphorePermit<'_>, Fault> {
        let permits = self.free.acquire_many(count as u32).await;
        permits.map_err(|closed| Fault::machine(MachineFaultKind::Bug, closed))
    }

    async fn ask_of(
        &self,
        slot: &Slot,
        state: &mut SlotState,
        request: &Request,
        hash: Option<ContentHash>,
        (limits, on_progress): (TimeLimits, OnProgress<'_>),
    ) -> Result<Answer, Fault> {
        let mut worker = self.worker(slot, state).await?;
        let device = state.device(slot);
        let on_memory = |memory| self.told(&device, memory);
        let at_work = AtWork::begin(self.observer.as_deref(), &device);
        let end = worker.ask(request, limits, on_progress, &on_memory).await;
        drop(at_work);
        match end {
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
                let is_joint = self
                    .joint
                    .as_ref()
                    .is_none_or(|joint| std::ptr::eq(joint, slot));
                if is_too_large(&fault) && !is_joint {
                    state.lost = Some(LossReason::of(&fault));
                    return Err(fault);
                }
                Err(self.attributed(slot, state, fault).await)
            }
            RequestEnd::Lost(fault) => {
                drop(worker);
                Err(self.attributed(slot, state, fault).await)
            }
        }
    }

    /// Tests the machine before a model comes under suspicion.
    async fn attributed(&self, slot: &Slot, state: &mut SlotState, fault: Fault) -> Fault {
        slot.forget();
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
        let at_work = AtWork::begin(self.observer.as_deref(), &device);
        let asked = worker.ask(&Request::SelfTest, SELF_TEST, &|_| {}, &on_memory);
        let end = asked.await;
        drop(at_work);
        let fault = match end {
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

    async fn worker(&self, slot: &Slot, state: &mut SlotState) -> Result<Worker, Fault> {
        slot.worker(state, &self.options, self.observer.as_deref())
            .await
    }
}

/// Whether a device had too little memory.
fn is_too_large(fault: &Fault) -> bool {
    matches!(fault, Fault::Machine(fault) if fault.kind == MachineFaultKind::OutOfMemory)
}

fn unexpected(answer: &Answer) -> Fault {
    let text: String = format!("unexpected answer {answer:?}")
        .chars()
        .take(200)
        .collect();
    Fault::machine(MachineFaultKind::Protocol, text)
}

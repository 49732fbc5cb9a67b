//! What is counted while the validator runs: counters and histograms, for the metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use http_server::metrics;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    StepRecord,
    step_record::{ModelRow, Outcome},
};

/// Every metric's name begins with this.
pub(crate) const PREFIX: &str = "finetune_vali";

type Labels = Vec<(&'static str, String)>;

/// Bounds of durations, in seconds: from a step of tiny models to one of a day.
const SECONDS: [f64; 14] = [
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0,
    86_400.0,
];

/// Bounds of the hub's answers, in seconds.
const ANSWER_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Counters and histograms. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Meters(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    steps: Family<Labels, Counter>,
    step_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    phase_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    model_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    tokens: Counter,
    models: Family<Labels, Counter>,
    faults: Family<Labels, Counter>,
    weight_sets: Counter,
    hub_bytes: Counter,
    hub_answers: Family<Labels, Counter>,
    hub_seconds: Histogram,
    worker_restarts: Family<Labels, Counter>,
    busy: Family<Labels, Counter<f64, AtomicU64>>,
    memory_used: Family<Labels, Gauge<u64, AtomicU64>>,
    memory_total: Family<Labels, Gauge<u64, AtomicU64>>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Default for Meters {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let inner = Inner {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            steps: Family::default(),
            step_seconds: Family::new_with_constructor(histogram),
            phase_seconds: Family::new_with_constructor(histogram),
            model_seconds: Family::new_with_constructor(histogram),
            tokens: Counter::default(),
            models: Family::default(),
            faults: Family::default(),
            weight_sets: Counter::default(),
            hub_bytes: Counter::default(),
            hub_answers: Family::default(),
            hub_seconds: Histogram::new(ANSWER_SECONDS),
            worker_restarts: Family::default(),
            busy: Family::default(),
            memory_used: Family::default(),
            memory_total: Family::default(),
        };
        let mut registry = inner
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        registry.register(
            "steps",
            "Steps completed since the start",
            inner.steps.clone(),
        );
        registry.register(
            "step_duration_seconds",
            "Duration of steps",
            inner.step_seconds.clone(),
        );
        registry.register(
            "phase_duration_seconds",
            "Duration of the phases of steps",
            inner.phase_seconds.clone(),
        );
        registry.register(
            "model_evaluation_seconds",
            "Duration of the evaluation of a model",
            inner.model_seconds.clone(),
        );
        registry.register(
            "evaluated_tokens",
            "Tokens that models were evaluated on",
            inner.tokens.clone(),
        );
        registry.register(
            "evaluated_models",
            "Models of steps, by what became of them",
            inner.models.clone(),
        );
        registry.register(
            "model_faults",
            "Models that failed, by whose fault it was",
            inner.faults.clone(),
        );
        registry.register(
            "weight_sets",
            "Weight sets that the chain took",
            inner.weight_sets.clone(),
        );
        inner.register_outside(&mut registry);
        drop(registry);
        Self(Arc::new(inner))
    }
}

impl Inner {
    /// Registers what is counted of the hub and of the workers.
    fn register_outside(&self, registry: &mut Registry) {
        registry.register(
            "hub_received_bytes",
            "Bytes of bodies received from the hub, its mirrors and where they redirect to",
            self.hub_bytes.clone(),
        );
        registry.register(
            "hub_answers",
            "Answers of the hub, its mirrors and where they redirect to, by class of status; none where none came",
            self.hub_answers.clone(),
        );
        registry.register(
            "hub_answer_seconds",
            "Time until the head of such an answer, or until it was clear that none comes",
            self.hub_seconds.clone(),
        );
        registry.register(
            "worker_restarts",
            "Evaluation workers that were replaced, by why the one before was lost",
            self.worker_restarts.clone(),
        );
        registry.register(
            "device_busy_seconds",
            "Time that the device's worker was at work on requests",
            self.busy.clone(),
        );
        registry.register(
            "device_memory_used_bytes",
            "Memory taken on the device, by all processes; on the CPU, by the evaluation worker",
            self.memory_used.clone(),
        );
        registry.register(
            "device_memory_total_bytes",
            "Memory of the device; on the CPU, the most that the evaluation worker may take",
            self.memory_total.clone(),
        );
    }
}

impl Meters {
    /// Counts a step that was completed.
    pub fn step(&self, record: &StepRecord) {
        let meters = &self.0;
        let competition = vec![("competition", record.competition.0.clone())];
        meters.steps.get_or_create(&competition).inc();
        meters
            .step_seconds
            .get_or_create(&competition)
            .observe(record.seconds());
        for (phase, seconds) in &record.timings {
            let phase = vec![("phase", phase.clone())];
            meters.phase_seconds.get_or_create(&phase).observe(*seconds);
        }
        for row in record.models.values() {
            self.model(record, row, &competition);
        }
    }

    fn model(&self, record: &StepRecord, row: &ModelRow, competition: &Labels) {
        let meters = &self.0;
        let outcome = match &row.outcome {
            // Its losses were known already.
            Outcome::Evaluated if row.seconds <= 0.0 => "known",
            Outcome::Evaluated => "evaluated",
            Outcome::CopyOf(_) => "copy",
            Outcome::Failed(fault) => {
                let kind = vec![("fault", fault.kind.to_string())];
                meters.faults.get_or_create(&kind).inc();
                "failed"
            }
        };
        meters
            .models
            .get_or_create(&vec![("outcome", outcome.to_owned())])
            .inc();
        if outcome == "evaluated" {
            let tokens = record
                .plans
                .get(&row.tokenizer)
                .map_or(0, |plan| plan.tokens);
            meters.tokens.inc_by(tokens);
            meters
                .model_seconds
                .get_or_create(competition)
                .observe(row.seconds);
        }
    }

    /// Counts a weight set that was confirmed.
    pub fn weights_set(&self) {
        self.0.weight_sets.inc();
    }

    /// Counts an answer of the hub by its status, if one came at all.
    pub fn hub_answered(&self, status: Option<u16>, after: Duration) {
        let class =
            status.map_or_else(|| "none".to_owned(), |status| format!("{}xx", status / 100));
        let class = vec![("class", class)];
        self.0.hub_answers.get_or_create(&class).inc();
        self.0.hub_seconds.observe(after.as_secs_f64());
    }

    /// Counts bytes that came from the hub.
    pub fn hub_received(&self, bytes: u64) {
        self.0.hub_bytes.inc_by(bytes);
    }

    /// Counts a worker that was replaced.
    pub fn worker_replaced(&self, device: &str, reason: &str) {
        let labels = vec![("device", device.to_owned()), ("reason", reason.to_owned())];
        self.0.worker_restarts.get_or_create(&labels).inc();
    }

    /// Counts time that a device's worker was at work.
    pub fn device_busy(&self, device: &str, time: Duration) {
        let device = vec![("device", device.to_owned())];
        self.0
            .busy
            .get_or_create(&device)
            .inc_by(time.as_secs_f64());
    }

    /// Notes how full a device is, in bytes.
    pub fn device_memory(&self, device: &str, used: u64, total: u64) {
        let device = vec![("device", device.to_owned())];
        self.0.memory_used.get_or_create(&device).set(used);
        self.0.memory_total.get_or_create(&device).set(total);
    }

    /// Returns meters in which each family has a row: one without any is not written.
    #[cfg(test)]
    pub(crate) fn with_every_row() -> Self {
        let meters = Self::default();
        let inner = &meters.0;
        let label = |name: &'static str| vec![(name, "x".to_owned())];
        for (counter, name) in [
            (&inner.steps, "competition"),
            (&inner.models, "outcome"),
            (&inner.faults, "fault"),
        ] {
            drop(counter.get_or_create(&label(name)));
        }
        for (histogram, name) in [
            (&inner.step_seconds, "competition"),
            (&inner.phase_seconds, "phase"),
            (&inner.model_seconds, "competition"),
        ] {
            drop(histogram.get_or_create(&label(name)));
        }
        meters.hub_answered(None, Duration::ZERO);
        meters.worker_replaced("cpu", "crashed");
        meters.device_busy("cpu", Duration::ZERO);
        meters.device_memory("cpu", 1, 2);
        meters
    }

    /// Returns the metrics as text.
    pub fn text(&self) -> String {
        metrics::text(
            &self
                .0
                .registry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

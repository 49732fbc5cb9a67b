//! What is counted while the validator runs: counters and histograms, for the metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http_server::metrics;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
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
        drop(registry);
        Self(Arc::new(inner))
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

    /// Returns meters in which each family has a row: one without any is not written.
    #[cfg(test)]
    pub(crate) fn with_every_row() -> Self {
        let meters = Self::default();
        let (inner, labels) = (&meters.0, Labels::new());
        let counters = [&inner.steps, &inner.models, &inner.faults];
        for counter in counters {
            drop(counter.get_or_create(&labels));
        }
        let histograms = [
            &inner.step_seconds,
            &inner.phase_seconds,
            &inner.model_seconds,
        ];
        for histogram in histograms {
            drop(histogram.get_or_create(&labels));
        }
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

//! The end of a step: from losses to the record of wins, weights and who stays.

use std::collections::BTreeMap;

use shared::clock;

use super::{Context, Field, StepStart, evaluation::Verdict};
use model::ContentHash;
use report::{
    StepRecord,
    step_record::{self, Generated, ModelRow, Outcome, Plan, Rules},
};
use samples::SampleSet;
use score::{WinRow, WinTable, survivors, weights::softmax};
use subnet::{FaultKind, Real, Uid};

/// Everything a step found out.
pub(super) struct RecordParts<'a> {
    pub(super) start: &'a StepStart,
    pub(super) field: &'a Field,
    pub(super) set: &'a SampleSet,
    pub(super) verdicts: &'a BTreeMap<ContentHash, Verdict>,
    pub(super) generated: BTreeMap<Uid, Generated>,
    pub(super) timings: BTreeMap<String, f64>,
}

pub(super) fn record(context: &Context, found: RecordParts<'_>) -> StepRecord {
    let RecordParts {
        start,
        field,
        set,
        verdicts,
        generated,
        timings,
    } = found;
    let (models, plans) = rows(field, set, verdicts);
    let parameters = &context.settings.parameters;
    let competitions = parameters.competitions_at(start.block).len();
    let rules = Rules::of(parameters, competitions, start.competition.reward_share);
    let before = context.state.look(|state| state.weights.clone());
    let mut record = StepRecord {
        format: step_record::FORMAT,
        version: context.version.clone(),
        netuid: parameters.netuid,
        hotkey: context.hotkey,
        step: start.open.step,
        competition: start.competition.id.clone(),
        block: start.block,
        block_hash: start.block_hash.clone(),
        started_at: start.open.started_at,
        finished_at: clock::now(),
        rules,
        samples: step_record::Samples {
            seed: start.open.seed.to_string(),
            seed_block: start.open.seed_block,
            cached_age: set.cached_age,
            sources: set.sources.clone(),
            digest: set.digest.clone(),
            ids: set.samples.iter().map(|sample| sample.id.clone()).collect(),
        },
        engine: context.engine(),
        sandbox: context.board.details().sandbox,
        plans,
        models,
        refused: start.refused.clone(),
        weights_before: before.values().iter().copied().map(Real::from).collect(),
        weights_after: Vec::new(),
        kept: Vec::new(),
        generated,
        receipt: context.state.look(|state| state.receipt.clone()),
        timings,
    };
    score(&mut record);
    record
}

/// Fills in wins, weights and who stays, from the losses of a record.
pub fn score(record: &mut StepRecord) {
    let rules = &record.rules;
    let wins = WinTable::compute(&record.entrants(), rules.epsilon, record.block);
    let step_weights = softmax(&wins.win_rates(), rules.temperature);
    let before: score::Weights = record.weights_before.iter().copied().collect();
    let n = before.values().len();
    let after = before.after(&step_weights, n, rules.scale, rules.alpha);
    let blocks = record
        .models
        .iter()
        .map(|(uid, row)| (*uid, row.block))
        .collect();
    record.kept = survivors(&wins, &blocks, rules.sample_min)
        .into_iter()
        .collect();
    record.weights_after = after.values().iter().copied().map(Real::from).collect();
    for (uid, row) in &mut record.models {
        row.score = wins.get(*uid).copied().unwrap_or_default();
        row.step_weight = step_weights.get(uid).copied().unwrap_or(0.0).into();
        row.weight = after.get(*uid).into();
    }
}

fn rows(
    field: &Field,
    set: &SampleSet,
    verdicts: &BTreeMap<ContentHash, Verdict>,
) -> (BTreeMap<Uid, ModelRow>, BTreeMap<String, Plan>) {
    let mut plans = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for (uid, candidate) in &field.candidates {
        let mut row = ModelRow {
            hotkey: candidate.hotkey,
            block: candidate.block,
            model: candidate.model.to_string(),
            content: candidate.content.to_string(),
            parameters: candidate.parameters,
            tokenizer: String::new(),
            outcome: Outcome::Evaluated,
            losses: Vec::new(),
            score: WinRow::default(),
            step_weight: Real::default(),
            weight: Real::default(),
            seconds: 0.0,
        };
        if let Some(original) = field.copies.get(uid) {
            row.outcome = Outcome::CopyOf(*original);
        } else if let Some(verdict) = verdicts.get(&candidate.content) {
            match verdict {
                Ok(found) => {
                    plans.insert(found.tokenizer.clone(), found.plan.clone());
                    row.tokenizer.clone_from(&found.tokenizer);
                    row.losses.clone_from(&found.losses);
                    row.seconds = found.seconds;
                }
                Err(fault) => {
                    row.outcome = Outcome::Failed(fault.clone());
                    if fault.kind == FaultKind::Model {
                        row.losses = vec![Real(f64::INFINITY); set.samples.len()];
                    }
                }
            }
        }
        rows.insert(*uid, row);
    }
    (rows, plans)
}

//! The row of a step: the keys that the Python validator logs.

use std::collections::BTreeMap;

use super::row::{Cell, Row};
use crate::step_record::{Generated, ModelRow, StepRecord};
use subnet::Uid;

/// Returns the row of a step.
pub fn step_row(record: &StepRecord, generated: &BTreeMap<Uid, Generated>) -> Row {
    let per_uid = |value: &dyn Fn(&ModelRow) -> f64| {
        Cell::Map(
            record
                .models
                .iter()
                .map(|(uid, row)| (uid.to_string(), Cell::Number(value(row))))
                .collect(),
        )
    };
    let texts = |text: &dyn Fn(&Generated) -> &str| {
        Cell::Map(
            generated
                .iter()
                .map(|(uid, texts)| (uid.to_string(), text(texts).into()))
                .collect(),
        )
    };
    let phase = |name: &str| {
        let seconds = record.timings.get(name).copied().unwrap_or_default();
        Cell::Text(format!("{name}: {seconds:.3} s"))
    };
    let original = serde_json::json!({
        "step": record.step,
        "competition_id": record.competition,
        "block": record.block,
        "sample_set": record.samples.digest,
        "models": record.models.iter().map(|(uid, row)| (uid.to_string(), serde_json::json!({
            "model": row.model, "block": row.block, "content": row.content,
            "outcome": row.outcome,
        }))).collect::<BTreeMap<_, _>>(),
    });
    Row::from([
        (
            "time".into(),
            (record.finished_at.as_millisecond() as f64 / 1e3).into(),
        ),
        (
            "competition_id".into(),
            record.competition.0.as_str().into(),
        ),
        ("block".into(), (record.block as f64).into()),
        ("uid_data".into(), per_uid(&ModelRow::mean_loss)),
        (
            "perplexity_data".into(),
            per_uid(&|row| row.mean_loss().exp()),
        ),
        ("win_rate_data".into(), per_uid(&|row| row.score.win_rate)),
        (
            "win_total_data".into(),
            per_uid(&|row| f64::from(row.score.wins)),
        ),
        ("weight_data".into(), per_uid(&|row| row.weight.0)),
        ("sample_prompt_data".into(), texts(&|texts| &texts.prompt)),
        (
            "sample_response_data".into(),
            texts(&|texts| &texts.response),
        ),
        ("sample_truth_data".into(), texts(&|texts| &texts.truth)),
        ("load_model_perf".into(), phase("load")),
        ("compute_loss_perf".into(), phase("evaluate")),
        ("load_data_perf".into(), phase("samples")),
        ("original_format_json".into(), original.to_string().into()),
    ])
}

//! `validator diff`: compare the records of two validators.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::{Exit, Failure, cli::FullPath, term};

use super::records;
use crate::step::replay::deviation;
use report::{StepRecord, journal::Entry};
use subnet::{CompetitionId, Real};

/// Compare the step records of two validators
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Records of one validator
    #[arg(value_name = "A")]
    a: FullPath,
    /// Records of the other
    #[arg(value_name = "B")]
    b: FullPath,
    /// Largest deviation of a loss that counts as equal
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tolerance: f64,
    /// Accept records without signature
    #[arg(long)]
    unsigned: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Two steps of one competition on samples of one seed.
#[derive(Debug, Serialize)]
struct Pair {
    competition: CompetitionId,
    seed: String,
    steps: [u64; 2],
    /// Whether the sample sets are the same.
    same_samples: bool,
    /// Whether device, dtype, attention and packing are the same.
    same_engine: bool,
    /// Models evaluated by both.
    common: usize,
    /// Models evaluated by one of them only.
    only: [usize; 2],
    /// Largest difference of a loss of a common model.
    loss_deviation: Real,
    /// Largest difference of a weight after the step.
    weight_deviation: Real,
}

pub(super) fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let load = |path: &FullPath| -> Result<Vec<Entry>, Failure> {
        let entries = records::read(path)?;
        for entry in &entries {
            records::check_signature(entry, args.unsigned).map_err(|failure| {
                failure.because(format_args!(
                    "step {} of {}",
                    entry.record.step,
                    path.display()
                ))
            })?;
        }
        Ok(entries)
    };
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let pairs = pairs(&a, &b);
    if pairs.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            "the two have no step of one competition and seed",
        )
        .hint("validators share seeds with `--seed block` and the same --sync-blocks"));
    }
    if args.json {
        term::json(&pairs);
    } else {
        show(&pairs);
    }
    let equal = pairs
        .iter()
        .all(|pair| pair.same_samples && pair.loss_deviation.0 <= args.tolerance);
    Ok(if equal { Exit::Ok } else { Exit::Failed })
}

/// Pairs the last steps of each competition and seed.
fn pairs(a: &[Entry], b: &[Entry]) -> Vec<Pair> {
    let by_seed = |entries: &'_ [Entry]| -> BTreeMap<(CompetitionId, String), StepRecord> {
        let keyed = entries.iter().map(|entry| {
            let record = &entry.record;
            let key = (record.competition.clone(), record.samples.seed.clone());
            (key, record.clone())
        });
        keyed.collect()
    };
    let (a, b) = (by_seed(a), by_seed(b));
    a.iter()
        .filter_map(|(key, a)| Some(pair(a, b.get(key)?)))
        .collect()
}

fn pair(a: &StepRecord, b: &StepRecord) -> Pair {
    let losses = |record: &StepRecord| -> BTreeMap<String, Vec<Real>> {
        let rows = record.models.values().filter(|row| !row.losses.is_empty());
        rows.map(|row| (row.content.clone(), row.losses.clone()))
            .collect()
    };
    let (losses_a, losses_b) = (losses(a), losses(b));
    let common = losses_a
        .iter()
        .filter_map(|(content, a)| Some(deviation(a, losses_b.get(content)?)));
    let common: Vec<f64> = common.collect();
    let kind = |record: &StepRecord| {
        let engine = record.engine.clone();
        (
            engine.device,
            engine.dtype,
            engine.attention,
            engine.pack_tokens,
        )
    };
    Pair {
        competition: a.competition.clone(),
        seed: a.samples.seed.clone(),
        steps: [a.step, b.step],
        same_samples: a.samples.digest == b.samples.digest,
        same_engine: kind(a) == kind(b),
        only: [losses_a.len() - common.len(), losses_b.len() - common.len()],
        loss_deviation: common.iter().copied().fold(0.0, f64::max).into(),
        common: common.len(),
        weight_deviation: deviation(&a.weights_after, &b.weights_after).into(),
    }
}

fn show(pairs: &[Pair]) {
    let mut table = term::table([
        "competition",
        "seed",
        "steps",
        "samples",
        "engine",
        "models",
        "loss deviation",
        "weight deviation",
    ]);
    let word = |same: bool| if same { "same" } else { "DIFFERENT" };
    for pair in pairs {
        table.add_row([
            pair.competition.to_string(),
            pair.seed.clone(),
            format!("{} / {}", pair.steps[0], pair.steps[1]),
            word(pair.same_samples).to_owned(),
            word(pair.same_engine).to_owned(),
            format!(
                "{} common, {} / {} alone",
                pair.common, pair.only[0], pair.only[1]
            ),
            format!("{:e}", pair.loss_deviation.0),
            format!("{:e}", pair.weight_deviation.0),
        ]);
    }
    term::line(table);
}

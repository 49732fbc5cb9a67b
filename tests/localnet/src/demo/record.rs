//! What the validator wrote down: its step records, read as any other program would read them.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use shared::term;

use crate::miners::Miner;

/// The parts of a step record that the demo shows and checks.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Step {
    pub(super) version: String,
    #[serde(rename = "step")]
    pub(super) number: u64,
    pub(super) competition: String,
    pub(super) models: BTreeMap<u16, RecordedModel>,
    #[serde(default)]
    pub(super) refused: Vec<RecordedRefusal>,
    #[serde(deserialize_with = "reals")]
    pub(super) weights_before: Vec<f64>,
    #[serde(deserialize_with = "reals")]
    pub(super) weights_after: Vec<f64>,
}

/// One model of a step.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RecordedModel {
    block: u64,
    outcome: Value,
    #[serde(deserialize_with = "reals")]
    losses: Vec<f64>,
    score: Score,
    #[serde(deserialize_with = "real")]
    pub(super) weight: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct Score {
    wins: u32,
    matches: u32,
    win_rate: f64,
}

/// A model that did not get as far as being evaluated.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RecordedRefusal {
    uid: u16,
    reason: String,
}

/// Non-finite numbers are strings there.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        other => other.as_f64().unwrap_or(f64::NAN),
    }
}

fn real<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Value::deserialize(deserializer).map(|value| number(&value))
}

fn reals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Vec::<Value>::deserialize(deserializer).map(|all| all.iter().map(number).collect())
}

/// Reads all complete records of a journal, oldest first; none if there is no journal yet.
pub(super) fn read(journal: &Path) -> Vec<Step> {
    let bytes = std::fs::read(journal).unwrap_or_default();
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    bytes[..complete]
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// Returns the newest step of each competition.
pub(super) fn newest(steps: &[Step]) -> BTreeMap<&str, &Step> {
    steps
        .iter()
        .map(|step| (step.competition.as_str(), step))
        .collect()
}

/// Returns why a miner's model got no weight, as some step says.
pub(super) fn reason(steps: &[Step], miner: &Miner) -> Option<String> {
    steps.iter().rev().find_map(|step| {
        let refused = step.refused.iter().find(|refusal| refusal.uid == miner.uid);
        let raced = step.models.get(&miner.uid).and_then(RecordedModel::reason);
        refused.map(|refusal| refusal.reason.clone()).or(raced)
    })
}

impl RecordedModel {
    /// Returns whether it was evaluated and has finite losses.
    pub(super) fn is_sound(&self) -> bool {
        self.outcome == "evaluated" && self.mean_loss().is_finite()
    }

    fn mean_loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    fn reason(&self) -> Option<String> {
        if let Some(original) = self.outcome.get("copy_of") {
            return Some(format!(
                "has the content of uid {original}, which committed earlier"
            ));
        }
        if let Some(fault) = self.outcome.get("failed") {
            return Some(fault["reason"].as_str().unwrap_or("failed").to_owned());
        }
        let bad = self.losses.iter().filter(|loss| !loss.is_finite()).count();
        (bad > 0).then(|| format!("{bad} of {} losses are not finite", self.losses.len()))
    }
}

impl Step {
    /// Returns the table of the step: models by win rate.
    pub(super) fn table(&self, miners: &[Miner]) -> String {
        let headings = [
            "uid",
            "miner",
            "loss",
            "perplexity",
            "win rate",
            "wins",
            "weight",
            "block",
        ];
        let mut table = term::table(headings);
        let mut models: Vec<(&u16, &RecordedModel)> = self.models.iter().collect();
        models.sort_by(|(a_uid, a), (b_uid, b)| {
            b.score
                .win_rate
                .total_cmp(&a.score.win_rate)
                .then(a_uid.cmp(b_uid))
        });
        for (uid, model) in models {
            let miner = miners.iter().find(|miner| miner.uid == *uid);
            let loss = model.mean_loss();
            table.add_row([
                uid.to_string(),
                miner.map_or_else(|| "?".to_owned(), |miner| miner.role.to_string()),
                format!("{loss:.4}"),
                format!("{:.3}", loss.exp()),
                format!("{:.3}", model.score.win_rate),
                format!("{}/{}", model.score.wins, model.score.matches),
                format!("{:.4}", model.weight),
                model.block.to_string(),
            ]);
        }
        table.to_string()
    }

    /// Returns the weights as the chain stores them: the largest is 65535, zeros are left out.
    pub(super) fn on_chain(&self) -> Vec<(u16, u16)> {
        let largest = self.weights_after.iter().copied().fold(0.0, f64::max);
        self.weights_after
            .iter()
            .enumerate()
            .map(|(uid, weight)| {
                let scaled = (weight / largest * f64::from(u16::MAX)).round_ties_even();
                (uid as u16, scaled as u16)
            })
            .filter(|(_, weight)| *weight > 0)
            .collect()
    }
}

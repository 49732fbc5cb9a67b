//! `validator show weights`, `faults` and `trust`.

use index::{FaultRow, HealthChange, Index, IndexError, StartRow, TrustView, WeightSetRow};
use serde::Serialize;
use shared::term;

use super::pieces::{or_dash, repository, text, when};

/// Uids of a weight set that are listed.
const LISTED: usize = 12;

pub(super) fn weights(found: &[WeightSetRow]) {
    let Some(newest) = found.first() else {
        return term::note("no weights were set yet");
    };
    let mut table = term::table(["block", "when", "tries", "uids", "extrinsic"]);
    for row in found {
        table.add_row([
            row.block.to_string(),
            or_dash(row.at, when),
            row.attempts.to_string(),
            row.stored.len().to_string(),
            row.extrinsic.clone(),
        ]);
    }
    term::line(table);
    let mut stored = newest.stored.clone();
    stored.sort_by_key(|(uid, weight)| (std::cmp::Reverse(*weight), *uid));
    let sum: f64 = stored.iter().map(|(_, weight)| f64::from(*weight)).sum();
    term::line(format_args!("as read back at block {}:", newest.block));
    let mut table = term::table(["uid", "weight of 65535", "share"]);
    for (uid, weight) in stored.iter().take(LISTED) {
        let share = f64::from(*weight) / sum.max(1.0) * 100.0;
        table.add_row([uid.to_string(), weight.to_string(), format!("{share:.2} %")]);
    }
    term::line(table);
    if stored.len() > LISTED {
        term::line(format_args!(
            "and {} more; --json has all",
            stored.len() - LISTED
        ));
    }
}

/// What went wrong, and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Faults {
    models: Vec<FaultRow>,
    health: Vec<HealthChange>,
    starts: Vec<StartRow>,
}

impl Faults {
    pub(super) fn read(index: &Index, limit: usize) -> Result<Self, IndexError> {
        Ok(Self {
            models: index.faults(limit)?,
            health: index.health(limit)?,
            starts: index.starts(limit)?,
        })
    }

    pub(super) fn show(&self) {
        if self.models.is_empty() {
            term::line("models: none failed");
        } else {
            let mut table = term::table(["step", "when", "uid", "model", "at fault", "reason"]);
            for row in &self.models {
                table.add_row([
                    row.step.to_string(),
                    when(row.at),
                    row.uid.to_string(),
                    repository(&row.model),
                    row.fault.clone(),
                    text(&row.reason),
                ]);
            }
            term::line(table);
        }
        if self.health.is_empty() {
            term::line("validator: no problem is on record");
        } else {
            let mut table = term::table(["when", "cause", "became", "what"]);
            for row in &self.health {
                table.add_row([
                    when(row.at),
                    row.cause.clone(),
                    row.health.clone().unwrap_or_else(|| "over".to_owned()),
                    text(&row.text),
                ]);
            }
            term::line(table);
        }
        let mut table = term::table(["start", "version"]);
        for row in &self.starts {
            table.add_row([when(row.at), text(&row.version)]);
        }
        term::line(table);
    }
}

pub(super) fn trust(found: &TrustView) {
    let Some(now) = found.history.first() else {
        return term::note(
            "our trust was not read yet; a running validator reads it with the chain",
        );
    };
    term::line(format_args!(
        "validator trust {:.4} at block {}, {}",
        now.validator_trust,
        now.block,
        when(now.at)
    ));
    if let Some((before, after)) = found.fall() {
        term::line(format_args!("it fell from {before:.4} to {after:.4}"));
    }
    let mut table = term::table(["block", "when", "validator trust"]);
    for row in &found.history {
        table.add_row([
            row.block.to_string(),
            when(row.at),
            format!("{:.4}", row.validator_trust),
        ]);
    }
    term::line(table);
    let differing = || found.disagreements.iter().filter(|row| row.is_visible());
    if differing().next().is_none() {
        return term::line("our weights are those of the consensus");
    }
    term::line("where our weights differ most from the consensus:");
    let mut table = term::table(["uid", "ours", "consensus", "clipped"]);
    for row in differing().take(LISTED) {
        table.add_row([
            row.uid.to_string(),
            format!("{:.4}", row.ours),
            format!("{:.4}", row.consensus),
            format!("{:.4}", row.clipped),
        ]);
    }
    term::line(table);
}

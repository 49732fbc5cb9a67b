//! The table of a step and numbers of blocks, as people see them on the terminal.

use std::fmt::Write as _;

use shared::term;

use super::step_record::{ModelRow, Outcome, StepRecord};
use subnet::Uid;

/// The longest reason shown; the record has it whole.
const MAX_REASON: usize = 100;

/// The chain's pace: `pallet-aura`'s slot on finney. Localnets are faster.
const BLOCK_SECONDS: u64 = 12;

/// Returns a number of blocks with the time that they take.
pub fn blocks(blocks: u64) -> String {
    match blocks.saturating_mul(BLOCK_SECONDS) {
        seconds @ 0..120 => format!("{blocks} blocks ({seconds} s)"),
        seconds @ 120..7200 => format!("{blocks} blocks ({} min)", seconds / 60),
        seconds => format!("{blocks} blocks ({} h)", seconds / 3600),
    }
}

/// Returns the table of a step: the models by win rate, then the refused ones with the reasons.
pub fn step(record: &StepRecord) -> String {
    let mut table = term::table([
        "uid",
        "model",
        "loss",
        "perplexity",
        "win rate",
        "wins",
        "weight",
        "block",
        "note",
    ]);
    let mut rows: Vec<(&Uid, &ModelRow)> = record.models.iter().collect();
    rows.sort_by(|(uid_a, a), (uid_b, b)| {
        let rate = b.score.win_rate.total_cmp(&a.score.win_rate);
        rate.then_with(|| (a.block, uid_a).cmp(&(b.block, uid_b)))
    });
    for (uid, row) in rows {
        table.add_row([
            uid.to_string(),
            repository(&row.model),
            number(row.mean_loss(), 4),
            number(row.perplexity(), 2),
            format!("{:.3}", row.score.win_rate),
            format!("{}/{}", row.score.wins, row.score.matches),
            format!("{:.4}", row.weight.0),
            row.block.to_string(),
            note(row, record.kept.contains(uid)),
        ]);
    }
    for refusal in &record.refused {
        let blank = || "-".to_owned();
        table.add_row([
            refusal.uid.to_string(),
            repository(&refusal.model),
            blank(),
            blank(),
            blank(),
            blank(),
            blank(),
            refusal.block.to_string(),
            format!("refused: {}", short(&refusal.reason)),
        ]);
    }
    let mut text = String::new();
    let seconds = record.seconds();
    let _ = write!(
        text,
        "step {} · competition {} · block {} · {} samples {}{} · {seconds:.1} s\n{table}",
        record.step,
        record.competition,
        record.block,
        record.samples.ids.len(),
        record
            .samples
            .digest
            .get(..12)
            .unwrap_or(&record.samples.digest),
        match record.samples.cached_age {
            Some(age) => format!(" from the cache, {} min old", age / 60),
            None => String::new(),
        },
    );
    text
}

fn note(row: &ModelRow, kept: bool) -> String {
    let unscored = row.losses.iter().filter(|loss| !loss.0.is_finite()).count();
    match &row.outcome {
        Outcome::Evaluated if unscored > 0 => {
            format!("{unscored} of {} losses are not finite", row.losses.len())
        }
        Outcome::Evaluated if kept => String::new(),
        Outcome::Evaluated => "leaves the pool".to_owned(),
        Outcome::CopyOf(original) => format!("copy of uid {original}: not evaluated"),
        Outcome::Failed(fault) => format!("{} at fault: {}", fault.kind, short(&fault.to_string())),
    }
}

/// Returns `namespace/name` of a commitment.
fn repository(model: &str) -> String {
    let name: Vec<&str> = model.splitn(3, ':').take(2).collect();
    short(&name.join("/"))
}

fn number(value: f64, digits: usize) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() || value >= 1e9 {
        "inf".to_owned()
    } else {
        format!("{value:.digits$}")
    }
}

/// Miners write these texts: control characters go, long ones are cut.
fn short(text: &str) -> String {
    let mut line: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect();
    if text.chars().nth(MAX_REASON).is_some() {
        line.push('…');
    }
    line
}

//! Rows of steps, and how they are written and read.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use report::{
    StepRecord,
    step_record::{ModelRow, Outcome, Receipt, Refusal},
};
use subnet::{BlockNumber, FaultKind, Real, Uid};

/// A step without its models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepHead {
    pub step: u64,
    pub competition: String,
    pub block: BlockNumber,
    pub started: jiff::Timestamp,
    pub finished: jiff::Timestamp,
    pub seconds: f64,
    /// Digest of the sample set.
    pub digest: String,
    pub samples: u64,
    pub seed_block: Option<BlockNumber>,
    /// Age of the samples in seconds, if a cache stood in for its sources.
    pub cached_age: Option<u64>,
    pub sources: Vec<String>,
    pub version: String,
    pub device: String,
    pub dtype: String,
    pub models: u64,
    pub refused: u64,
    /// Seconds by phase.
    pub timings: BTreeMap<String, f64>,
}

/// A model of a step, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictRow {
    pub step: u64,
    pub competition: String,
    pub uid: Uid,
    pub hotkey: String,
    /// The commitment.
    pub model: String,
    /// Block of the commitment.
    pub committed: BlockNumber,
    pub content: String,
    pub parameters: u64,
    /// `evaluated`, `copy` or `failed`.
    pub outcome: String,
    /// The uid whose content it has.
    pub copy_of: Option<Uid>,
    /// Whose fault it is, if it failed.
    pub fault: Option<String>,
    pub reason: Option<String>,
    pub loss: Real,
    /// Losses that are finite, of so many samples.
    pub finite: u64,
    pub samples: u64,
    pub win_rate: f64,
    pub wins: u32,
    pub matches: u32,
    /// Running weight after the step.
    pub weight: Real,
    /// Whether it stays for the next step.
    pub kept: bool,
    /// Place in the step, from 1; none if it did not race.
    pub rank: Option<u32>,
    /// Seconds of evaluation; 0 if its losses were known.
    pub seconds: f64,
}

/// A model in one of several steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesPoint {
    pub step: u64,
    pub uid: Uid,
    pub loss: Real,
    pub win_rate: f64,
    pub weight: Real,
}

/// A commitment that was refused: from when until when it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalSpan {
    pub uid: Uid,
    pub hotkey: String,
    pub competition: String,
    pub model: String,
    /// Block of the commitment.
    pub committed: BlockNumber,
    pub reason: String,
    pub first_step: u64,
    pub first_seen: jiff::Timestamp,
    pub last_step: u64,
    pub last_seen: jiff::Timestamp,
}

/// Writes a record as rows.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    record: &StepRecord,
    line_sha256: &str,
) -> Result<(), rusqlite::Error> {
    let step = record.step.cast_signed();
    transaction.execute(
        "INSERT INTO step VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)",
        params![
            step,
            record.competition.0,
            record.block.cast_signed(),
            record.started_at.as_millisecond(),
            record.finished_at.as_millisecond(),
            record.seconds(),
            record.samples.digest,
            record.samples.ids.len() as i64,
            record.samples.seed_block.map(u64::cast_signed),
            record.samples.cached_age.map(u64::cast_signed),
            serde_json::json!(record.samples.sources).to_string(),
            record.version,
            record.engine.device,
            record.engine.dtype,
            record.models.len() as i64,
            record.refused.len() as i64,
            serde_json::json!(record.timings).to_string(),
            line_sha256,
        ],
    )?;
    let mut verdict = transaction.prepare(
        "INSERT OR REPLACE INTO verdict VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
    )?;
    let mut losses = transaction.prepare("INSERT OR REPLACE INTO losses VALUES (?1, ?2, ?3)")?;
    let ranks = ranks(record);
    for (uid, row) in &record.models {
        let (outcome, copy_of, fault, reason) = match &row.outcome {
            Outcome::Evaluated => ("evaluated", None, None, None),
            Outcome::CopyOf(original) => ("copy", Some(original.0), None, None),
            Outcome::Failed(fault) => {
                let kind = fault.kind.to_string();
                ("failed", None, Some(kind), Some(fault.to_string()))
            }
        };
        let finite = row.losses.iter().filter(|loss| loss.0.is_finite()).count();
        verdict.execute(params![
            step,
            uid.0,
            model_id(transaction, row)?,
            outcome,
            copy_of,
            fault,
            reason,
            row.mean_loss(),
            finite as i64,
            row.losses.len() as i64,
            row.score.win_rate,
            row.score.wins,
            row.score.matches,
            row.weight.0,
            record.kept.contains(uid),
            ranks
                .iter()
                .position(|ranked| ranked == uid)
                .map(|at| at as i64 + 1),
            row.seconds,
        ])?;
        if matches!(row.outcome, Outcome::Evaluated) {
            let bytes: Vec<u8> = row
                .losses
                .iter()
                .flat_map(|loss| loss.0.to_le_bytes())
                .collect();
            losses.execute(params![step, uid.0, bytes])?;
        }
    }
    for refusal in &record.refused {
        insert_refusal(transaction, record, refusal)?;
    }
    if let Some(receipt) = &record.receipt {
        insert_receipt(transaction, receipt, None)?;
    }
    Ok(())
}

/// Returns the models that raced, best first, as the step's table has them.
fn ranks(record: &StepRecord) -> Vec<Uid> {
    let raced = |row: &ModelRow| match &row.outcome {
        Outcome::Evaluated | Outcome::CopyOf(_) => true,
        Outcome::Failed(fault) => fault.kind == FaultKind::Model,
    };
    let mut rows: Vec<(&Uid, &ModelRow)> =
        record.models.iter().filter(|(_, row)| raced(row)).collect();
    rows.sort_by(|(uid_a, a), (uid_b, b)| {
        let rate = b.score.win_rate.total_cmp(&a.score.win_rate);
        rate.then_with(|| (a.block, uid_a).cmp(&(b.block, uid_b)))
    });
    rows.into_iter().map(|(uid, _)| *uid).collect()
}

fn model_id(transaction: &Transaction<'_>, row: &ModelRow) -> Result<i64, rusqlite::Error> {
    let key = params![
        row.hotkey.ss58(),
        row.block.cast_signed(),
        row.model,
        row.content
    ];
    let question =
        "SELECT id FROM model WHERE hotkey = ?1 AND block = ?2 AND name = ?3 AND content = ?4";
    if let Some(id) = transaction
        .query_row(question, key, |row| row.get(0))
        .optional()?
    {
        return Ok(id);
    }
    transaction.execute(
        "INSERT INTO model (hotkey, block, name, content, parameters) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            row.hotkey.ss58(),
            row.block.cast_signed(),
            row.model,
            row.content,
            row.parameters.cast_signed()
        ],
    )?;
    Ok(transaction.last_insert_rowid())
}

fn insert_refusal(
    transaction: &Transaction<'_>,
    record: &StepRecord,
    refusal: &Refusal,
) -> Result<(), rusqlite::Error> {
    transaction.execute(
        "INSERT INTO refusal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7, ?8)
         ON CONFLICT (hotkey, block) DO UPDATE SET uid = excluded.uid, reason = excluded.reason,
             last_step = excluded.last_step, last_at = excluded.last_at",
        params![
            refusal.hotkey.ss58(),
            refusal.block.cast_signed(),
            refusal.uid.0,
            record.competition.0,
            refusal.model,
            refusal.reason,
            record.step.cast_signed(),
            record.finished_at.as_millisecond(),
        ],
    )?;
    Ok(())
}

/// Writes a receipt; the event knows when, a record only that it was before.
pub(crate) fn insert_receipt(
    transaction: &Transaction<'_>,
    receipt: &Receipt,
    at: Option<i64>,
) -> Result<usize, rusqlite::Error> {
    transaction.execute(
        "INSERT INTO weight_set VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (block) DO UPDATE SET at = coalesce(at, excluded.at)",
        params![
            receipt.block.cast_signed(),
            at,
            receipt.extrinsic,
            receipt.attempts,
            serde_json::json!(receipt.stored).to_string(),
        ],
    )
}

/// What [`verdict_of`] reads.
pub(crate) const VERDICTS: &str = "SELECT v.step, s.competition, v.uid, m.hotkey, m.name, m.block, m.content,
    m.parameters, v.outcome, v.copy_of, v.fault, v.reason, v.loss, v.finite, v.samples, v.win_rate, v.wins,
    v.matches, v.weight, v.kept, v.rank, v.seconds
    FROM verdict v JOIN model m ON m.id = v.model JOIN step s ON s.step = v.step";

pub(crate) fn verdict_of(row: &Row<'_>) -> Result<VerdictRow, rusqlite::Error> {
    Ok(VerdictRow {
        step: unsigned(row, 0)?,
        competition: row.get(1)?,
        uid: Uid(row.get(2)?),
        hotkey: row.get(3)?,
        model: row.get(4)?,
        committed: unsigned(row, 5)?,
        content: row.get(6)?,
        parameters: unsigned(row, 7)?,
        outcome: row.get(8)?,
        copy_of: row.get::<_, Option<u16>>(9)?.map(Uid),
        fault: row.get(10)?,
        reason: row.get(11)?,
        loss: real(row, 12)?,
        finite: unsigned(row, 13)?,
        samples: unsigned(row, 14)?,
        win_rate: row.get(15)?,
        wins: row.get(16)?,
        matches: row.get(17)?,
        weight: real(row, 18)?,
        kept: row.get(19)?,
        rank: row.get(20)?,
        seconds: row.get(21)?,
    })
}

/// What [`head_of`] reads.
pub(crate) const HEADS: &str =
    "SELECT step, competition, block, started, finished, seconds, digest, samples,
    seed_block, cached_age, sources, version, device, dtype, models, refused, timings FROM step";

pub(crate) fn head_of(row: &Row<'_>) -> Result<StepHead, rusqlite::Error> {
    let optional = |at: usize| -> Result<Option<u64>, rusqlite::Error> {
        Ok(row.get::<_, Option<i64>>(at)?.map(i64::cast_unsigned))
    };
    Ok(StepHead {
        step: unsigned(row, 0)?,
        competition: row.get(1)?,
        block: unsigned(row, 2)?,
        started: time(row, 3)?,
        finished: time(row, 4)?,
        seconds: row.get(5)?,
        digest: row.get(6)?,
        samples: unsigned(row, 7)?,
        seed_block: optional(8)?,
        cached_age: optional(9)?,
        sources: json(row, 10)?,
        version: row.get(11)?,
        device: row.get(12)?,
        dtype: row.get(13)?,
        models: unsigned(row, 14)?,
        refused: unsigned(row, 15)?,
        timings: json(row, 16)?,
    })
}

pub(crate) const REFUSALS: &str =
    "SELECT uid, hotkey, competition, name, block, reason, first_step, first_at, last_step, last_at
    FROM refusal";

pub(crate) fn refusal_of(row: &Row<'_>) -> Result<RefusalSpan, rusqlite::Error> {
    Ok(RefusalSpan {
        uid: Uid(row.get(0)?),
        hotkey: row.get(1)?,
        competition: row.get(2)?,
        model: row.get(3)?,
        committed: unsigned(row, 4)?,
        reason: row.get(5)?,
        first_step: unsigned(row, 6)?,
        first_seen: time(row, 7)?,
        last_step: unsigned(row, 8)?,
        last_seen: time(row, 9)?,
    })
}

/// Reads a number that was written with `cast_signed`.
pub(crate) fn unsigned(row: &Row<'_>, at: usize) -> Result<u64, rusqlite::Error> {
    Ok(row.get::<_, i64>(at)?.cast_unsigned())
}

/// Reads a number that may be NaN, which SQLite has as NULL.
pub(crate) fn real(row: &Row<'_>, at: usize) -> Result<Real, rusqlite::Error> {
    Ok(Real(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN)))
}

pub(crate) fn time(row: &Row<'_>, at: usize) -> Result<jiff::Timestamp, rusqlite::Error> {
    let time = jiff::Timestamp::from_millisecond(row.get(at)?);
    Ok(time.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Reads what was written as JSON; what is not readable is empty.
pub(crate) fn json<T: serde::de::DeserializeOwned + Default>(
    row: &Row<'_>,
    at: usize,
) -> Result<T, rusqlite::Error> {
    let text: String = row.get(at)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

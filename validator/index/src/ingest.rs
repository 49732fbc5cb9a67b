//! From lines of the journal and of the events to rows.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use crate::{
    IndexError, KEPT_ANSWERS, KEPT_LOSSES, KEPT_STEPS, answers,
    lines::{self, ReadPosition},
    rows,
};
use report::{
    StepRecord,
    events::{EVENTS, EVENTS_BEFORE, Event, Happening},
    journal,
};
use shared::file::FileError;

/// Rows kept of what has no step.
const KEPT_EVENTS: u32 = 20_000;

/// Steps beyond those kept that wait to be removed together.
const SURPLUS: u64 = 1000;

/// What can go wrong with a line: its file, or the database.
enum IngestError {
    Io(io::Error),
    Sql(rusqlite::Error),
    /// The journal is another one than was indexed.
    Other,
}

impl From<io::Error> for IngestError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rusqlite::Error> for IngestError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Takes in what was written since the last time. Returns false if the journal is another one than was indexed: then
/// nothing is changed.
pub(crate) fn ingest(
    connection: &mut Connection,
    records: &Path,
    path: &Path,
) -> Result<bool, IndexError> {
    let fail = IndexError::on(path);
    let rotated = journal::rotated(records)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&fail)?;
    let outcome = steps(&transaction, records, &rotated)
        .and_then(|()| events(&transaction, records))
        .and_then(|()| Ok(prune(&transaction)?));
    match outcome {
        Ok(()) => transaction.commit().map_err(&fail)?,
        Err(IngestError::Sql(error)) => return Err(fail(error)),
        Err(IngestError::Io(error)) => return Err(FileError::on("read", records)(error).into()),
        Err(IngestError::Other) => return Ok(false),
    }
    Ok(true)
}

/// The newest step that is indexed, with the digest of its line.
struct Newest(Option<(u64, String)>);

impl Newest {
    fn of(transaction: &Transaction<'_>) -> Result<Self, rusqlite::Error> {
        let question = "SELECT step, line_sha256 FROM step ORDER BY step DESC LIMIT 1";
        let newest = transaction
            .query_row(question, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(Self(newest.map(|(step, line): (i64, String)| {
            (step.cast_unsigned(), line)
        })))
    }

    fn has(&self, step: u64) -> bool {
        self.0.as_ref().is_some_and(|(newest, _)| *newest >= step)
    }
}

fn steps(
    transaction: &Transaction<'_>,
    records: &Path,
    rotated: &[PathBuf],
) -> Result<(), IngestError> {
    let mut newest = Newest::of(transaction)?;
    let ranges: Vec<_> = rotated
        .iter()
        .filter_map(|path| Some((path, journal::steps_of(path)?)))
        .collect();
    let last = ranges.last().map_or(0, |(_, (_, last))| *last);
    for (path, (_, to)) in ranges {
        if !newest.has(to) && to + KEPT_STEPS > last {
            lines::compressed(path, |line| take(transaction, &mut newest, line).map(drop))?;
        }
    }
    let before = place_of(transaction, journal::CURRENT)?;
    let mut highest = None;
    let place = lines::behind(&records.join(journal::CURRENT), &before, |line| {
        highest = highest.max(take(transaction, &mut newest, line)?);
        Ok::<_, IngestError>(())
    })?;
    // Steps never fall: lines that end below what is indexed are of a journal that was begun anew.
    let known = newest.0.as_ref().map(|(step, _)| *step);
    if highest.is_some() && highest < known {
        return Err(IngestError::Other);
    }
    remember(transaction, journal::CURRENT, &place)?;
    Ok(())
}

/// Takes in a line, unless its step is indexed; returns its step. A line that is not a record is passed over: who opens
/// the journal to write it sets it aside.
fn take(
    transaction: &Transaction<'_>,
    newest: &mut Newest,
    line: &[u8],
) -> Result<Option<u64>, IngestError> {
    let Ok(record) = serde_json::from_slice::<StepRecord>(line) else {
        return Ok(None);
    };
    let step = record.step;
    let digest = || hex::encode(Sha256::digest(line));
    match &newest.0 {
        Some((known, sha256)) if *known == step && *sha256 != digest() => {
            return Err(IngestError::Other);
        }
        Some((known, _)) if *known >= step => return Ok(Some(step)),
        _ => {}
    }
    let sha256 = digest();
    rows::insert(transaction, &record, &sha256)?;
    answers::insert(transaction, &record)?;
    newest.0 = Some((step, sha256));
    Ok(Some(step))
}

/// An event that is read twice, because its file was rotated, is one event.
fn events(transaction: &Transaction<'_>, records: &Path) -> Result<(), IngestError> {
    for name in [EVENTS_BEFORE, EVENTS] {
        let known = place_of(transaction, name)?;
        let end = lines::behind(&records.join(name), &known, |line| {
            if let Ok(event) = serde_json::from_slice::<Event>(line) {
                insert_event(transaction, &event)?;
            }
            Ok::<_, IngestError>(())
        })?;
        remember(transaction, name, &end)?;
    }
    Ok(())
}

fn insert_event(transaction: &Transaction<'_>, event: &Event) -> Result<(), rusqlite::Error> {
    let at = event.at.as_millisecond();
    let json = |value: serde_json::Value| value.to_string();
    match &event.what {
        Happening::Started { version } => transaction.execute(
            "INSERT INTO start (at, version) SELECT ?1, ?2
             WHERE NOT EXISTS (SELECT 1 FROM start WHERE at = ?1)",
            params![at, version],
        ),
        Happening::Problem {
            cause,
            health,
            text,
        } => {
            let health = format!("{health:?}").to_lowercase();
            health_row(transaction, at, &cause.to_string(), Some(&health), text)
        }
        Happening::Ended { cause } => health_row(transaction, at, &cause.to_string(), None, ""),
        Happening::WeightsSet(receipt) => rows::insert_receipt(transaction, receipt, Some(at)),
        Happening::Trust(reading) => transaction.execute(
            "INSERT OR REPLACE INTO trust VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                reading.block.cast_signed(),
                at,
                reading.validator_trust,
                json(serde_json::json!(reading.consensus)),
                json(serde_json::json!(reading.ours)),
            ],
        ),
        Happening::Unknown => Ok(0),
    }
    .map(drop)
}

fn health_row(
    transaction: &Transaction<'_>,
    at: i64,
    cause: &str,
    health: Option<&str>,
    text: &str,
) -> Result<usize, rusqlite::Error> {
    transaction.execute(
        "INSERT INTO health (at, cause, health, text) SELECT ?1, ?2, ?3, ?4
         WHERE NOT EXISTS (SELECT 1 FROM health WHERE at = ?1 AND cause = ?2 AND health IS ?3 AND text = ?4)",
        params![at, cause, health, text],
    )
}

fn place_of(transaction: &Transaction<'_>, name: &str) -> Result<ReadPosition, rusqlite::Error> {
    let question = "SELECT offset, tail FROM source WHERE name = ?1";
    let place = transaction.query_row(question, [name], |row| {
        let offset: i64 = row.get(0)?;
        Ok(ReadPosition {
            offset: offset.cast_unsigned(),
            tail: row.get(1)?,
        })
    });
    Ok(place.optional()?.unwrap_or_default())
}

fn remember(
    transaction: &Transaction<'_>,
    name: &str,
    place: &ReadPosition,
) -> Result<(), rusqlite::Error> {
    transaction.execute(
        "INSERT OR REPLACE INTO source VALUES (?1, ?2, ?3)",
        params![name, place.offset.cast_signed(), place.tail],
    )?;
    Ok(())
}

/// Keeps the bounds.
fn prune(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let ends = "SELECT min(step), max(step) FROM step";
    let (oldest, newest): (Option<i64>, Option<i64>) =
        transaction.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (oldest, newest) = (oldest.unwrap_or(0), newest.unwrap_or(0));
    transaction.execute(
        "DELETE FROM losses WHERE step <= ?1",
        [newest.saturating_sub_unsigned(KEPT_LOSSES)],
    )?;
    for table in ["prompt", "answer"] {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE step <= ?1"),
            [newest.saturating_sub_unsigned(KEPT_ANSWERS)],
        )?;
    }
    // Many at a time: looking for models that no step has left reads all verdicts.
    if newest.abs_diff(oldest) > KEPT_STEPS + SURPLUS {
        let beyond = newest.saturating_sub_unsigned(KEPT_STEPS);
        transaction.execute("DELETE FROM verdict WHERE step <= ?1", [beyond])?;
        transaction.execute("DELETE FROM step WHERE step <= ?1", [beyond])?;
        transaction.execute(
            "DELETE FROM model WHERE id NOT IN (SELECT model FROM verdict)",
            [],
        )?;
    }
    for statement in [
        "DELETE FROM refusal WHERE last_step < (SELECT last_step FROM refusal ORDER BY last_step DESC LIMIT 1 OFFSET ?1)",
        "DELETE FROM health WHERE id <= (SELECT max(id) FROM health) - ?1",
        "DELETE FROM start WHERE id <= (SELECT max(id) FROM start) - ?1",
        "DELETE FROM weight_set WHERE block < (SELECT block FROM weight_set ORDER BY block DESC LIMIT 1 OFFSET ?1)",
        "DELETE FROM trust WHERE block < (SELECT block FROM trust ORDER BY block DESC LIMIT 1 OFFSET ?1)",
    ] {
        transaction.execute(statement, [KEPT_EVENTS])?;
    }
    Ok(())
}

//! What happened: faults, problems of the validator, starts of new versions, weight sets.

use rusqlite::Row;
use serde::Serialize;

use crate::{
    Index, IndexError,
    rows::{json, time, unsigned},
};
use subnet::{BlockNumber, Uid};

/// A model that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultRow {
    pub step: u64,
    pub at: jiff::Timestamp,
    pub competition: String,
    pub uid: Uid,
    pub model: String,
    /// Whose fault it is.
    pub fault: String,
    pub reason: String,
}

/// A problem of the validator that began, changed or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthChange {
    pub at: jiff::Timestamp,
    pub cause: String,
    /// `yellow` or `red`; none where it ended.
    pub health: Option<String>,
    pub text: String,
}

/// A start that became ready: a version that was taken into use, or went on after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StartRow {
    pub at: jiff::Timestamp,
    pub version: String,
}

/// Weights as the chain took them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WeightSetRow {
    pub block: BlockNumber,
    /// When; unknown of sets that only a step record tells of.
    pub at: Option<jiff::Timestamp>,
    pub extrinsic: String,
    pub attempts: u32,
    /// What was read back: uid and weight, of 65535.
    pub stored: Vec<(Uid, u16)>,
}

impl Index {
    /// Returns the models that could not be evaluated, newest first.
    pub fn faults(&self, most: usize) -> Result<Vec<FaultRow>, IndexError> {
        self.list(
            "SELECT v.step, s.finished, s.competition, v.uid, m.name, v.fault, coalesce(v.reason, '')
             FROM verdict v JOIN model m ON m.id = v.model JOIN step s ON s.step = v.step
             WHERE v.fault IS NOT NULL ORDER BY v.step DESC, v.uid",
            most,
            |row| {
                Ok(FaultRow {
                    step: unsigned(row, 0)?,
                    at: time(row, 1)?,
                    competition: row.get(2)?,
                    uid: Uid(row.get(3)?),
                    model: row.get(4)?,
                    fault: row.get(5)?,
                    reason: row.get(6)?,
                })
            },
        )
    }

    /// Returns how the validator's own problems came and went, newest first.
    pub fn health(&self, most: usize) -> Result<Vec<HealthChange>, IndexError> {
        self.list(
            "SELECT at, cause, health, text FROM health ORDER BY at DESC, id DESC",
            most,
            |row| {
                Ok(HealthChange {
                    at: time(row, 0)?,
                    cause: row.get(1)?,
                    health: row.get(2)?,
                    text: row.get(3)?,
                })
            },
        )
    }

    /// Returns the starts, newest first.
    pub fn starts(&self, most: usize) -> Result<Vec<StartRow>, IndexError> {
        self.list(
            "SELECT at, version FROM start ORDER BY at DESC, id DESC",
            most,
            |row| {
                Ok(StartRow {
                    at: time(row, 0)?,
                    version: row.get(1)?,
                })
            },
        )
    }

    /// Returns the weight sets, newest first.
    pub fn weight_sets(&self, most: usize) -> Result<Vec<WeightSetRow>, IndexError> {
        self.list(
            "SELECT block, extrinsic, attempts, stored, at FROM weight_set ORDER BY block DESC",
            most,
            |row| {
                let at: Option<i64> = row.get(4)?;
                Ok(WeightSetRow {
                    block: unsigned(row, 0)?,
                    extrinsic: row.get(1)?,
                    attempts: row.get(2)?,
                    stored: json(row, 3)?,
                    at: at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()),
                })
            },
        )
    }

    fn list<T>(
        &self,
        question: &str,
        most: usize,
        read: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<Vec<T>, IndexError> {
        self.ask(|connection| {
            connection
                .prepare(&format!("{question} LIMIT {most}"))?
                .query_map([], read)?
                .collect()
        })
    }
}

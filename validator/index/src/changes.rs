//! What changed between two steps of a competition.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Index, IndexError,
    rows::{StepHead, VerdictRow},
};
use subnet::{Real, Uid};

/// Two steps side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changes {
    pub from: StepHead,
    pub to: StepHead,
    /// Whether both were evaluated on the same samples.
    pub same_samples: bool,
    pub rows: Vec<Change>,
}

/// One uid in both steps; what a step does not have is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub uid: Uid,
    pub presence: Presence,
    pub model: String,
    pub rank: [Option<u32>; 2],
    pub loss: [Option<Real>; 2],
    pub win_rate: [Option<f64>; 2],
    pub wins: [Option<u32>; 2],
    pub weight: [Option<Real>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Entered,
    Left,
    Stayed,
    /// The uid has another hotkey or another model.
    Replaced,
}

impl Index {
    /// Compares each competition's newest step with the one before.
    pub fn newest_changes(&self) -> Result<Vec<Changes>, IndexError> {
        let mut found = Vec::new();
        for (to, from) in self.newest_pairs()? {
            if let Some(from) = from {
                found.extend(self.changes(from, to)?);
            }
        }
        Ok(found)
    }

    /// Compares two steps; `None` if one of them is not there.
    pub fn changes(&self, from: u64, to: u64) -> Result<Option<Changes>, IndexError> {
        let (Some((from, before)), Some((to, after))) =
            (self.step(Some(from))?, self.step(Some(to))?)
        else {
            return Ok(None);
        };
        Ok(Some(Changes {
            same_samples: from.digest == to.digest,
            rows: compare(&before, &after),
            from,
            to,
        }))
    }
}

/// Compares the models of two steps: by the later rank, then those that left.
fn compare(before: &[VerdictRow], after: &[VerdictRow]) -> Vec<Change> {
    let earlier: BTreeMap<Uid, &VerdictRow> = before.iter().map(|row| (row.uid, row)).collect();
    let mut rows: Vec<Change> = after
        .iter()
        .map(|row| change(earlier.get(&row.uid).copied(), Some(row), row))
        .collect();
    let left = before
        .iter()
        .filter(|row| after.iter().all(|later| later.uid != row.uid));
    rows.extend(left.map(|row| change(Some(row), None, row)));
    rows
}

fn change(before: Option<&VerdictRow>, after: Option<&VerdictRow>, named: &VerdictRow) -> Change {
    let presence = match (before, after) {
        (Some(before), Some(after)) => {
            let key = |row: &VerdictRow| (row.hotkey.clone(), row.model.clone());
            if key(before) == key(after) {
                Presence::Stayed
            } else {
                Presence::Replaced
            }
        }
        (Some(_), None) => Presence::Left,
        (None, _) => Presence::Entered,
    };
    let sides = [before, after];
    Change {
        uid: named.uid,
        presence,
        model: named.model.clone(),
        rank: sides.map(|row| row?.rank),
        loss: sides.map(|row| Some(row?.loss)),
        win_rate: sides.map(|row| Some(row?.win_rate)),
        wins: sides.map(|row| Some(row?.wins)),
        weight: sides.map(|row| Some(row?.weight)),
    }
}

//! Our validator trust: how it moved, and over which uids we disagree with the consensus.
//!
//! Yuma consensus (subtensor, `epoch/run_epoch.rs`) clips each weight at the consensus of its uid, the stake-weighted
//! median of all validators' weights; the trust of a validator is the sum of what is left of its weights, each row
//! normalized to 1. So what we give a uid above its consensus is exactly what our trust lacks.

use std::collections::BTreeMap;

use rusqlite::Row;
use serde::Serialize;

use crate::{
    Index, IndexError,
    rows::{json, time, unsigned},
};
use subnet::{BlockNumber, Uid};

/// The largest value of what the chain has in 16 bits.
const FULL: f64 = 65535.0;

/// A fall of the trust by more than this between two readings is told.
const FALL: f64 = 0.05;

/// Our trust at a block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrustRow {
    pub block: BlockNumber,
    pub at: jiff::Timestamp,
    /// From 0 to 1.
    pub validator_trust: f64,
}

/// A uid that we weigh otherwise than the consensus does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disagreement {
    pub uid: Uid,
    /// Our weight, as a share of all of ours.
    pub ours: f64,
    pub consensus: f64,
    /// What of our weight was clipped: it is missing in our trust.
    pub clipped: f64,
}

impl Disagreement {
    /// Returns whether four digits show a difference.
    pub fn is_visible(&self) -> bool {
        (self.ours - self.consensus).abs() >= 5e-5
    }
}

/// Our trust now, before, and why it is no higher.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrustView {
    /// Newest first.
    pub history: Vec<TrustRow>,
    /// The largest differences first.
    pub disagreements: Vec<Disagreement>,
}

impl TrustView {
    /// Returns the trust now and before, if it fell by more than may be.
    pub fn fall(&self) -> Option<(f64, f64)> {
        let [now, before, ..] = self.history.as_slice() else {
            return None;
        };
        let (now, before) = (now.validator_trust, before.validator_trust);
        (before - now > FALL).then_some((before, now))
    }
}

/// Compares our weights with the consensus; the largest differences come first.
fn disagreements(ours: &[(Uid, u16)], consensus: &[(Uid, u16)]) -> Vec<Disagreement> {
    let sum: f64 = ours.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let mut shares: BTreeMap<Uid, (f64, f64)> = BTreeMap::new();
    for (uid, weight) in ours {
        shares.entry(*uid).or_default().0 = f64::from(*weight) / sum.max(1.0);
    }
    for (uid, share) in consensus {
        shares.entry(*uid).or_default().1 = f64::from(*share) / FULL;
    }
    let mut found: Vec<Disagreement> = shares
        .into_iter()
        .map(|(uid, (ours, consensus))| Disagreement {
            uid,
            ours,
            consensus,
            clipped: (ours - consensus).max(0.0),
        })
        .collect();
    let difference = |row: &Disagreement| (row.ours - row.consensus).abs();
    found.sort_by(|a, b| difference(b).total_cmp(&difference(a)));
    found
}

impl Index {
    /// Returns our trust, with so many readings of before.
    pub fn trust(&self, most: usize) -> Result<TrustView, IndexError> {
        self.ask(|connection| {
            let question = format!(
                "SELECT block, at, validator_trust FROM trust ORDER BY block DESC LIMIT {most}"
            );
            let read = |row: &Row<'_>| {
                let trust: u16 = row.get(2)?;
                Ok(TrustRow {
                    block: unsigned(row, 0)?,
                    at: time(row, 1)?,
                    validator_trust: f64::from(trust) / FULL,
                })
            };
            let history: Vec<TrustRow> = connection
                .prepare(&question)?
                .query_map([], read)?
                .collect::<Result<_, _>>()?;
            let newest = "SELECT ours, consensus FROM trust ORDER BY block DESC LIMIT 1";
            let mut newest = connection.prepare(newest)?;
            let mut rows = newest.query_map([], |row| {
                Ok((
                    json::<Vec<(Uid, u16)>>(row, 0)?,
                    json::<Vec<(Uid, u16)>>(row, 1)?,
                ))
            })?;
            let disagreements = match rows.next().transpose()? {
                Some((ours, consensus)) => disagreements(&ours, &consensus),
                None => Vec::new(),
            };
            Ok(TrustView {
                history,
                disagreements,
            })
        })
    }
}

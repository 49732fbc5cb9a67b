//! Who leads in each competition, and why.

use serde::Serialize;

use crate::{
    Index, IndexError,
    rows::{StepHead, VerdictRow},
};
use subnet::{BlockNumber, Real, Uid};

/// The standings of a competition after its newest step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leaders {
    pub last: StepHead,
    /// The competition's step before, which the changes are against.
    pub before: Option<u64>,
    pub standings: Vec<Leader>,
}

/// A model's place, and the one it had before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Leader {
    /// None for a model that did not race.
    pub rank: Option<u32>,
    pub rank_before: Option<u32>,
    pub uid: Uid,
    pub hotkey: String,
    pub model: String,
    pub committed: BlockNumber,
    pub loss: Real,
    pub loss_before: Option<Real>,
    pub win_rate: f64,
    pub wins: u32,
    pub matches: u32,
    pub weight: Real,
    pub weight_before: Option<Real>,
    pub kept: bool,
    /// What put it there, in words.
    pub why: String,
}

impl Index {
    /// Returns the standings of every competition, as of its newest step.
    pub fn leaders(&self) -> Result<Vec<Leaders>, IndexError> {
        self.newest_pairs()?
            .into_iter()
            .filter_map(|(last, before)| self.standings(last, before).transpose())
            .collect()
    }

    /// Returns each competition's newest step and the one before it.
    pub(crate) fn newest_pairs(&self) -> Result<Vec<(u64, Option<u64>)>, IndexError> {
        self.ask(|connection| {
            connection
                .prepare(
                    "SELECT max(step), (SELECT max(b.step) FROM step b WHERE b.competition = a.competition
                        AND b.step < (SELECT max(step) FROM step c WHERE c.competition = a.competition))
                     FROM step a GROUP BY competition ORDER BY competition",
                )?
                .query_map([], |row| {
                    let before: Option<i64> = row.get(1)?;
                    Ok((crate::rows::unsigned(row, 0)?, before.map(i64::cast_unsigned)))
                })?
                .collect()
        })
    }

    fn standings(&self, last: u64, before: Option<u64>) -> Result<Option<Leaders>, IndexError> {
        let Some((head, rows)) = self.step(Some(last))? else {
            return Ok(None);
        };
        let earlier = match before {
            Some(before) => self.step(Some(before))?.map(|(_, rows)| rows),
            None => None,
        }
        .unwrap_or_default();
        let first = rows.iter().find(|row| row.rank == Some(1));
        let second = rows.iter().find(|row| row.rank == Some(2));
        let standings = rows.iter().map(|row| {
            let same = |other: &&VerdictRow| other.uid == row.uid && other.hotkey == row.hotkey;
            let earlier = earlier.iter().find(same);
            Leader {
                rank: row.rank,
                rank_before: earlier.and_then(|row| row.rank),
                uid: row.uid,
                hotkey: row.hotkey.clone(),
                model: row.model.clone(),
                committed: row.committed,
                loss: row.loss,
                loss_before: earlier.map(|row| row.loss),
                win_rate: row.win_rate,
                wins: row.wins,
                matches: row.matches,
                weight: row.weight,
                weight_before: earlier.map(|row| row.weight),
                kept: row.kept,
                why: why(row, first, second),
            }
        });
        Ok(Some(Leaders {
            standings: standings.collect(),
            last: head,
            before,
        }))
    }
}

/// Says what put a model where it is.
fn why(row: &VerdictRow, first: Option<&VerdictRow>, second: Option<&VerdictRow>) -> String {
    if let Some(original) = row.copy_of {
        return format!("copy of uid {original}: not evaluated");
    }
    if let Some(reason) = &row.reason {
        let fault = row.fault.as_deref().unwrap_or("unknown");
        return format!("{fault} at fault: {reason}");
    }
    if row.finite < row.samples {
        let broken = row.samples - row.finite;
        return format!("{broken} of {} losses are not finite", row.samples);
    }
    let against = match (row.rank, first, second) {
        (Some(1), _, second) => second,
        (_, first, _) => first,
    };
    let wins = format!("wins {} of {} comparisons", row.wins, row.matches);
    match against.map(|other| (other.uid, row.loss.0 / other.loss.0 - 1.0)) {
        Some((uid, share)) if share.is_finite() => {
            let side = if share <= 0.0 { "below" } else { "above" };
            format!(
                "{wins}; loss {:.2} % {side} that of uid {uid}",
                share.abs() * 100.0
            )
        }
        _ => wins,
    }
}

//! Questions about steps, uids and refusals.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params_from_iter};

use crate::{
    Index, IndexError,
    rows::{
        HEADS, REFUSALS, RefusalSpan, SeriesPoint, StepHead, VERDICTS, VerdictRow, head_of, real,
        refusal_of, unsigned, verdict_of,
    },
};
use subnet::Uid;

impl Index {
    /// Returns a step, if it is there; without a number, the newest.
    pub fn step(
        &self,
        step: Option<u64>,
    ) -> Result<Option<(StepHead, Vec<VerdictRow>)>, IndexError> {
        self.ask(|connection| {
            let head = connection
                .query_row(
                    &format!("{HEADS} WHERE step = coalesce(?1, (SELECT max(step) FROM step))"),
                    [step.map(u64::cast_signed)],
                    head_of,
                )
                .optional()?;
            let Some(head) = head else { return Ok(None) };
            let question =
                format!("{VERDICTS} WHERE v.step = ?1 ORDER BY v.rank IS NULL, v.rank, v.uid");
            let rows = connection
                .prepare(&question)?
                .query_map([head.step.cast_signed()], verdict_of)?
                .collect::<Result<_, _>>()?;
            Ok(Some((head, rows)))
        })
    }

    /// Returns the newest steps, newest first, of one competition or of all.
    pub fn steps(
        &self,
        competition: Option<&str>,
        most: usize,
    ) -> Result<Vec<StepHead>, IndexError> {
        self.ask(|connection| {
            let chosen = competition.map_or("", |_| "WHERE competition = ?1");
            connection
                .prepare(&format!("{HEADS} {chosen} ORDER BY step DESC LIMIT {most}"))?
                .query_map(params_from_iter(competition), head_of)?
                .collect()
        })
    }

    /// Returns what became of a uid's models, newest step first.
    pub fn verdicts(&self, uid: Uid, most: usize) -> Result<Vec<VerdictRow>, IndexError> {
        self.ask(|connection| {
            connection
                .prepare(&format!(
                    "{VERDICTS} WHERE v.uid = ?1 ORDER BY v.step DESC LIMIT {most}"
                ))?
                .query_map([uid.0], verdict_of)?
                .collect()
        })
    }

    /// Returns the refused commitments of a uid or of all, those told last first.
    pub fn refusals(&self, uid: Option<Uid>, most: usize) -> Result<Vec<RefusalSpan>, IndexError> {
        self.ask(|connection| {
            let chosen = uid.map_or("", |_| "WHERE uid = ?1");
            connection
                .prepare(&format!(
                    "{REFUSALS} {chosen} ORDER BY last_step DESC, uid LIMIT {most}"
                ))?
                .query_map(params_from_iter(uid.map(|uid| uid.0)), refusal_of)?
                .collect()
        })
    }

    /// Returns the losses of a step's models, sample by sample; empty for a step of long ago.
    pub fn losses(&self, step: u64) -> Result<BTreeMap<Uid, Vec<f64>>, IndexError> {
        self.ask(|connection| {
            connection
                .prepare("SELECT uid, losses FROM losses WHERE step = ?1")?
                .query_map([step.cast_signed()], |row| {
                    let bytes: Vec<u8> = row.get(1)?;
                    let losses = bytes
                        .chunks_exact(8)
                        .filter_map(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)));
                    Ok((Uid(row.get(0)?), losses.collect()))
                })?
                .collect()
        })
    }

    /// Returns how the models of a competition fared in its newest steps, oldest first.
    pub fn series(&self, competition: &str, steps: usize) -> Result<Vec<SeriesPoint>, IndexError> {
        self.ask(|connection| {
            connection
                .prepare(&format!(
                    "SELECT v.step, v.uid, v.loss, v.win_rate, v.weight FROM verdict v WHERE v.step IN
                     (SELECT step FROM step WHERE competition = ?1 ORDER BY step DESC LIMIT {steps})
                     ORDER BY v.step, v.uid"
                ))?
                .query_map([competition], |row| {
                    Ok(SeriesPoint {
                        step: unsigned(row, 0)?,
                        uid: Uid(row.get(1)?),
                        loss: real(row, 2)?,
                        win_rate: row.get(3)?,
                        weight: real(row, 4)?,
                    })
                })?
                .collect()
        })
    }
}

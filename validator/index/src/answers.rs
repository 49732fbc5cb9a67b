//! What models answered to a prompt, with `--do_sample`.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::Serialize;

use crate::{Index, IndexError};
use report::StepRecord;
use subnet::Uid;

/// A text is kept up to so many characters; the record has all of it.
const MAX_CHARS: usize = 2000;

/// The prompt of a step, the answer that its sample has, and those of the models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub prompt: String,
    pub truth: String,
    pub answers: BTreeMap<Uid, String>,
}

fn head(text: &str) -> String {
    text.chars().take(MAX_CHARS).collect()
}

/// Writes the answers of a record, if it has any.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    record: &StepRecord,
) -> Result<(), rusqlite::Error> {
    // All models answer the same prompt.
    let Some(first) = record.generated.values().next() else {
        return Ok(());
    };
    let step = record.step.cast_signed();
    transaction.execute(
        "INSERT OR REPLACE INTO prompt VALUES (?1, ?2, ?3)",
        params![step, head(&first.prompt), head(&first.truth)],
    )?;
    let mut answer = transaction.prepare("INSERT OR REPLACE INTO answer VALUES (?1, ?2, ?3)")?;
    for (uid, generated) in &record.generated {
        answer.execute(params![step, uid.0, head(&generated.response)])?;
    }
    Ok(())
}

impl Index {
    /// Returns what the models of a step answered, if they were asked and it is one of the newest.
    pub fn answers(&self, step: u64) -> Result<Option<Answers>, IndexError> {
        let step = step.cast_signed();
        self.ask(|connection| {
            let question = "SELECT prompt, truth FROM prompt WHERE step = ?1";
            let prompt =
                connection.query_row(question, [step], |row| Ok((row.get(0)?, row.get(1)?)));
            let Some((prompt, truth)) = prompt.optional()? else {
                return Ok(None);
            };
            let answers = connection
                .prepare("SELECT uid, answer FROM answer WHERE step = ?1")?
                .query_map([step], |row| Ok((Uid(row.get(0)?), row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            Ok(Some(Answers {
                prompt,
                truth,
                answers,
            }))
        })
    }
}

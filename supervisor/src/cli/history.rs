//! `history`: what happened to each update.

use shared::{
    Exit, Failure,
    term::{self, span},
};

use super::query::{Query, home, short};
use crate::history;

/// Lists what happened to each update.
pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    let entries = history::read(&home(&query.which)?.history())
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    if query.json {
        term::json(&entries);
        return Ok(Exit::Ok);
    }
    let mut table = term::table([
        "time",
        "result",
        "commit",
        "took",
        "signed by",
        "what and why",
    ]);
    for entry in &entries {
        let note = &entry.note;
        let why = [note.summary.as_str(), note.reason.as_str()];
        let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
        table.add_row([
            entry.time.clone(),
            note.result.to_string(),
            short(&note.commit).to_owned(),
            span(note.seconds),
            note.signer.clone().unwrap_or_default(),
            why.join(": "),
        ]);
    }
    term::line(table);
    Ok(Exit::Ok)
}

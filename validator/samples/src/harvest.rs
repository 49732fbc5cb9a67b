//! What a fetch from one source brought: records, and what was skipped and why.

use serde::Serialize;
use shared::term;

use super::{filter::Dropped, lenient_json, record::Record};

/// Notes are for people; more than these say nothing new.
const MAX_NOTES: usize = 20;
/// Much of a note may be the words of a stranger's server.
const MAX_NOTE_CHARS: usize = 400;

/// Records and the story of how they were had.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Harvest {
    /// The records read, in order.
    #[serde(skip)]
    pub records: Vec<Record>,
    /// How many records were not used, by reason.
    pub dropped: Dropped,
    /// What went wrong on the way, in words that name it.
    pub notes: Vec<String>,
}

impl Harvest {
    /// Adds a note for people, made fit for a terminal.
    pub fn note(&mut self, note: impl std::fmt::Display) {
        if self.notes.len() < MAX_NOTES {
            self.notes
                .push(term::printable(&note.to_string(), MAX_NOTE_CHARS));
        }
    }

    /// Reads one line of JSONL; blank lines are skipped.
    pub fn read_line(&mut self, line: &str, origin: &str, number: usize) {
        if line.trim().is_empty() {
            return;
        }
        match lenient_json::parse(line) {
            Ok(value) => self.read_value(&value, format!("{origin}#{number}")),
            Err(error) => {
                self.dropped.add("malformed line");
                self.note(format_args!("{origin} line {number}: {error}"));
            }
        }
    }

    /// Reads one record, or counts why it is none.
    pub fn read_value(&mut self, value: &serde_json::Value, origin: String) {
        match Record::read(value) {
            Ok(record) => self.records.push(Record { origin, ..record }),
            Err(missing) => {
                self.dropped.add(missing);
                self.note(format_args!("{origin}: {missing}"));
            }
        }
    }
}

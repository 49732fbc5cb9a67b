//! What a fetch from one source brought: records, and what was skipped and why.

use serde::Serialize;
use shared::term;

use super::{filter::Dropped, lenient_json, record::Record, text::TextReader};

/// Notes are for people; more than these say nothing new.
const MAX_NOTES: usize = 20;
/// Much of a note may be the words of a stranger's server.
const MAX_NOTE_CHARS: usize = 400;

/// Records and the story of how they were had.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Harvest {
    /// The records.
    #[serde(skip)]
    pub records: Vec<Record>,
    /// What was not used.
    pub dropped: Dropped,
    /// What went wrong on the way, in words that name it.
    pub notes: Vec<String>,
}

impl Harvest {
    /// Adds a note.
    pub fn note(&mut self, note: impl std::fmt::Display) {
        if self.notes.len() < MAX_NOTES {
            self.notes
                .push(term::printable(&note.to_string(), MAX_NOTE_CHARS));
        }
    }

    /// Reads JSONL, or one JSON array, that came from `origin`.
    pub fn read_text(&mut self, text: &str, origin: &str) {
        let mut reader = TextReader::onto(std::mem::take(self), origin);
        reader.push(text.as_bytes());
        *self = reader.finish();
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

    /// Reads one record.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_skipped_counted_and_named() {
        let mut harvest = Harvest::default();
        harvest.read_text(
            "{\"prompt\":\"p\",\"response\":\"r\"}\n{oops\n\n{\"a\":1}\n",
            "f",
        );
        assert_eq!(harvest.records.len(), 1);
        assert_eq!(harvest.records[0].origin, "f#1");
        insta::assert_json_snapshot!(harvest, @r#"
        {
          "dropped": {
            "malformed line": 1,
            "no messages, conversations, instruction/output or prompt/response pair": 1
          },
          "notes": [
            "f line 2: key must be a string at line 1 column 2",
            "f#4: no messages, conversations, instruction/output or prompt/response pair"
          ]
        }
        "#);
    }

    #[test]
    fn an_array_is_read_too() {
        let mut harvest = Harvest::default();
        harvest.read_text(" [{\"question\":\"p\",\"answer\":\"r\"}, 3]", "u");
        assert_eq!((harvest.records.len(), harvest.notes.len()), (1, 1));
    }
}

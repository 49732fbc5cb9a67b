//! Which records may be scored: stripped, not empty, no refusal, no duplicate.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;
use shared::file::{self, FileError};

use super::record::Record;

const MAX_BYTES: u64 = 1 << 20;
/// A single turn longer than this is not a chat sample; it would only cost memory.
const MAX_TURN_BYTES: usize = 1 << 20;

/// All turns together: what is longer is not a chat, and would not fit into one request to a worker.
const MAX_CONVERSATION_BYTES: usize = 8 << 20;

/// Phrases by which a response shows that its author declined to answer.
#[derive(Debug, Clone)]
pub struct Filter {
    phrases: Vec<String>,
}

/// Why records were dropped, with counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Dropped(pub BTreeMap<String, u64>);

impl Dropped {
    /// Counts one more record dropped for a reason.
    pub fn add(&mut self, reason: &str) {
        *self.0.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds the counts of another source.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            *self.0.entry(reason.clone()).or_default() += count;
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::of(include_str!("../data/refusals.txt"))
    }
}

impl Filter {
    /// Reads phrases from a file: one a line, `#` begins a comment line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = file::read_limited(path, MAX_BYTES)?
            .ok_or_else(|| FileError::on("read", path)(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self::of(&String::from_utf8_lossy(&bytes)))
    }

    fn of(text: &str) -> Self {
        let phrases = text
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(ToOwned::to_owned)
            .collect();
        Self { phrases }
    }

    /// Strips the records and keeps the usable ones, each conversation once; counts the others.
    pub fn apply(&self, records: Vec<Record>, dropped: &mut Dropped) -> Vec<Record> {
        let mut seen = BTreeSet::new();
        let mut kept = Vec::with_capacity(records.len());
        for mut record in records {
            for message in &mut record.conversation.messages {
                message.content = strip(&message.content).to_owned();
            }
            if let Some(reason) = self.reason(&record) {
                dropped.add(reason);
            } else if seen.insert(record.id()) {
                kept.push(record);
            } else {
                dropped.add("duplicate");
            }
        }
        kept
    }

    fn reason(&self, record: &Record) -> Option<&'static str> {
        let messages = &record.conversation.messages;
        let response = &messages.last()?.content;
        if messages.iter().any(|message| message.content.is_empty()) {
            Some("empty prompt or response")
        } else if messages
            .iter()
            .any(|message| message.content.len() > MAX_TURN_BYTES)
        {
            Some("longer than 1 MiB")
        } else if messages.iter().map(|m| m.content.len()).sum::<usize>() > MAX_CONVERSATION_BYTES {
            Some("all turns longer than 8 MiB")
        } else if self
            .phrases
            .iter()
            .any(|phrase| response.contains(phrase.as_str()))
        {
            Some("refusal phrase")
        } else {
            None
        }
    }
}

/// Strips what Python's `str.strip` strips: Unicode white space and the four separators
/// U+001C to U+001F, which Rust's `trim` keeps.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strips_as_python_does() {
        assert_eq!(
            strip("\u{1c}\u{1d} a\u{1e}b \u{1f}\u{85}\u{a0}\u{2028}\u{3000}"),
            "a\u{1e}b"
        );
    }

    #[test]
    fn each_reason_is_counted() {
        let record = |prompt: &str, response: &str| {
            Record::read(&json!({"prompt": prompt, "response": response})).unwrap()
        };
        let records = vec![
            record("p", "r"),
            record(" p ", "r\n"),
            record("p", " "),
            record("p", "As an AI language model, I cannot"),
            record("p", &"x".repeat(MAX_TURN_BYTES + 1)),
        ];
        let mut dropped = Dropped::default();
        let kept = Filter::default().apply(records, &mut dropped);
        assert_eq!(kept.len(), 1);
        insta::assert_json_snapshot!(dropped, @r#"
        {
          "duplicate": 1,
          "empty prompt or response": 1,
          "longer than 1 MiB": 1,
          "refusal phrase": 1
        }
        "#);
    }
}

//! What happened to each update: one JSON object a line, kept to a size.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::file::{self, FileError};

use crate::update::state::Note;

const MAX_BYTES: u64 = 1 << 22;
const KEEP: usize = 1000;

/// A note with the time it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    /// RFC 3339.
    pub(crate) time: String,
    #[serde(flatten)]
    pub(crate) note: Note,
}

/// Adds a note, dropping the oldest beyond the limit.
pub(crate) fn add(path: &Path, note: &Note) -> Result<(), FileError> {
    let mut entries = read(path)?;
    let now = jiff::Timestamp::from_second(shared::clock::now().as_second()).unwrap_or_default();
    entries.push(HistoryEntry {
        time: now.to_string(),
        note: note.clone(),
    });
    let surplus = entries.len().saturating_sub(KEEP);
    let mut text = String::new();
    for entry in &entries[surplus..] {
        if let Ok(line) = serde_json::to_string(entry) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    file::write_atomic_private(path, text.as_bytes())
}

/// Reads all notes, oldest first; a line of another version that can't be read is skipped.
pub(crate) fn read(path: &Path) -> Result<Vec<HistoryEntry>, FileError> {
    let bytes = file::read_limited(path, MAX_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

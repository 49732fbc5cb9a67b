//! What happens beside the steps: starts, problems that begin and end, weight sets, our trust.
//!
//! One JSON line each, in a file of bounded size beside the journal. Unlike the journal it is not signed: it is for
//! the operator, and nobody else's business.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::{
    file::{self, FileError},
    status::Health,
};

use crate::{journal::cut_half_line, problem::Cause, step_record::Receipt};
use subnet::{BlockNumber, Uid};

/// The file that is being written, in the folder of the journal.
pub const EVENTS: &str = "events.jsonl";

/// The file before it.
pub const EVENTS_BEFORE: &str = "events.jsonl.1";

/// A file is renamed to the one before at this size: months of an eventful life.
const ROTATE_BYTES: u64 = 8 << 20;

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: Happening,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A start became ready.
    Started { version: String },
    /// A problem began, or became better or worse.
    Problem {
        cause: Cause,
        health: Health,
        text: String,
    },
    /// A problem ended.
    Ended { cause: Cause },
    /// Our weights were set, and read back.
    WeightsSet(Receipt),
    /// An epoch gave us another trust, or the uids another consensus.
    Trust(TrustReading),
    /// Something that only a later release knows.
    #[serde(other)]
    Unknown,
}

/// What the chain makes of our weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustReading {
    pub block: BlockNumber,
    /// Our validator trust, of 65535: the share of our weights that the consensus did not clip.
    pub validator_trust: u16,
    /// The consensus of each uid that has any, of 65535.
    pub consensus: Vec<(Uid, u16)>,
    /// Our own weights on the chain.
    pub ours: Vec<(Uid, u16)>,
}

/// The file of events, open for writing. There is one writer: it runs under the lock of the state.
#[derive(Debug)]
pub struct EventLog(PathBuf);

impl EventLog {
    /// Opens the file in the folder of the journal; half a line, left by a crash, is cut off.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        file::create_dir(folder)?;
        let path = folder.join(EVENTS);
        cut_half_line(&path).map_err(FileError::on("repair", &path))?;
        Ok(Self(path))
    }

    /// Appends what happened.
    pub fn append(&self, event: &Event) -> Result<(), FileError> {
        if fs::metadata(&self.0).is_ok_and(|meta| meta.len() > ROTATE_BYTES) {
            let before = self.0.with_file_name(EVENTS_BEFORE);
            fs::rename(&self.0, &before).map_err(FileError::on("rotate", &self.0))?;
        }
        let mut line = serde_json::json!(event).to_string().into_bytes();
        line.push(b'\n');
        file::append(&self.0, &line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_crash_and_a_later_release() {
        let dir = tempfile::tempdir().unwrap();
        let happened = |what| Event {
            at: Timestamp::UNIX_EPOCH,
            what,
        };
        let event = happened(Happening::Problem {
            cause: Cause::Chain,
            health: Health::Yellow,
            text: "a\nb".into(),
        });
        EventLog::open(dir.path()).unwrap().append(&event).unwrap();
        let path = dir.path().join(EVENTS);
        file::append(&path, b"{\"at\":\"1970").unwrap();
        let log = EventLog::open(dir.path()).unwrap();
        let receipt = happened(Happening::WeightsSet(Receipt {
            block: 7,
            extrinsic: "0x1".into(),
            attempts: 1,
            stored: vec![(Uid(1), 65535)],
        }));
        log.append(&receipt).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Event> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, [event, receipt]);
        let later = r#"{"at":"1970-01-01T00:00:00Z","event":"dreamt","of":"sheep"}"#;
        let later: Event = serde_json::from_str(later).unwrap();
        assert_eq!(later.what, Happening::Unknown);
    }
}

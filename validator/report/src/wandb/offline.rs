//! The `.wandb` file that W&B's own clients write: `wandb sync` reads it after an outage.
//!
//! A 7-byte header, then records framed as in a LevelDB log (32 KiB blocks; chunks of checksum,
//! length, type, payload) with the plain CRC-32 of zlib. A record is a small protobuf message.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::row::Row;

const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];
const BLOCK: usize = 32 * 1024;
const CHUNK_HEADER: usize = 7;

/// Numbers of the fields of `wandb_internal.Record` that we write.
mod record {
    pub(super) const HISTORY: u32 = 2;
    pub(super) const SUMMARY: u32 = 3;
    pub(super) const RUN: u32 = 17;
    pub(super) const EXIT: u32 = 18;
    pub(super) const HEADER: u32 = 21;
}

/// What the file says of the run itself.
#[derive(Debug, Clone)]
pub struct RunHeader<'a> {
    /// Id of the run in addresses.
    pub id: &'a str,
    /// Who owns the project; empty means the default of whoever syncs.
    pub entity: &'a str,
    /// Name of the project at W&B.
    pub project: &'a str,
    /// Name of the run on its page.
    pub name: &'a str,
    /// Configuration, each value as JSON.
    pub config: &'a [(String, String)],
    /// When it began, in seconds since 1970.
    pub started_at: u64,
}

/// Writes the `.wandb` file of a run.
#[derive(Debug)]
pub struct OfflineLog {
    file: File,
    /// Bytes written, the header included: blocks are counted from the start of the file.
    position: usize,
    records: u64,
}

impl OfflineLog {
    /// Begins a file with the header of its run.
    pub fn create(path: &Path, run: &RunHeader<'_>) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(&HEADER)?;
        let mut log = Self {
            file,
            position: HEADER.len(),
            records: 0,
        };
        let producer =
            ProtoMessage::new().text(1, concat!("finetune-vali/", env!("CARGO_PKG_VERSION")));
        log.append(record::HEADER, &ProtoMessage::new().message(1, &producer))?;
        let config = run
            .config
            .iter()
            .fold(ProtoMessage::new(), |config, (key, value)| {
                config.message(1, &ProtoMessage::new().text(1, key).text(16, value))
            });
        let message = ProtoMessage::new()
            .text(1, run.id)
            .text(2, run.entity)
            .text(3, run.project)
            .message(4, &config)
            .text(8, run.name)
            .message(17, &ProtoMessage::new().number(1, run.started_at));
        log.append(record::RUN, &message)?;
        Ok(log)
    }

    /// Appends the row of a step and the summary as it is after it.
    pub fn history(&mut self, step: u64, row: &Row, summary: &Row) -> io::Result<()> {
        let step = ProtoMessage::new().number(1, step);
        self.append(record::SUMMARY, &items(summary))?;
        self.append(record::HISTORY, &items(row).message(2, &step))
    }

    /// Appends how the run ended.
    pub fn exit(&mut self, code: u8, runtime_seconds: u64) -> io::Result<()> {
        let message = ProtoMessage::new()
            .number(1, u64::from(code))
            .number(2, runtime_seconds);
        self.append(record::EXIT, &message)?;
        self.file.sync_all()
    }

    fn append(&mut self, field: u32, message: &ProtoMessage) -> io::Result<()> {
        self.records += 1;
        let record = ProtoMessage::new()
            .number(1, self.records)
            .message(field, message);
        let framed = self.frame(&record.0);
        self.file.write_all(&framed)?;
        self.position += framed.len();
        Ok(())
    }

    fn frame(&self, mut payload: &[u8]) -> Vec<u8> {
        const FULL: u8 = 1;
        const FIRST: u8 = 2;
        const MIDDLE: u8 = 3;
        const LAST: u8 = 4;
        let mut out = Vec::with_capacity(payload.len() + 2 * CHUNK_HEADER);
        let mut first = true;
        loop {
            let left = BLOCK - (self.position + out.len()) % BLOCK;
            if left < CHUNK_HEADER {
                out.resize(out.len() + left, 0);
                continue;
            }
            let (chunk, rest) = payload.split_at(payload.len().min(left - CHUNK_HEADER));
            let kind = match (first, rest.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&[kind]);
            checksum.update(chunk);
            out.extend_from_slice(&checksum.finalize().to_le_bytes());
            // A chunk is shorter than a block of 32 KiB.
            out.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
            out.push(kind);
            out.extend_from_slice(chunk);
            first = false;
            payload = rest;
            if rest.is_empty() {
                return out;
            }
        }
    }
}

/// Items of a history or summary record: key and value as JSON.
fn items(row: &Row) -> ProtoMessage {
    row.iter()
        .fold(ProtoMessage::new(), |message, (key, cell)| {
            message.message(1, &ProtoMessage::new().text(1, key).text(16, &cell.json()))
        })
}

/// A protobuf message being written.
#[derive(Debug, Default)]
struct ProtoMessage(Vec<u8>);

impl ProtoMessage {
    fn new() -> Self {
        Self::default()
    }

    fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the chunks back and checks their sums; returns the records.
    fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(bytes[..7], HEADER);
        let (mut at, mut records, mut open) = (7, Vec::new(), Vec::new());
        while at < bytes.len() {
            let left = BLOCK - at % BLOCK;
            if left < CHUNK_HEADER {
                at += left;
                continue;
            }
            let sum = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let length = usize::from(u16::from_le_bytes(
                bytes[at + 4..at + 6].try_into().unwrap(),
            ));
            let kind = bytes[at + 6];
            let chunk = &bytes[at + 7..at + 7 + length];
            assert!(length + CHUNK_HEADER <= left, "a chunk crosses a block");
            assert_eq!(crc32fast::hash(&[&[kind], chunk].concat()), sum);
            open.extend_from_slice(chunk);
            if kind == 1 || kind == 4 {
                records.push(std::mem::take(&mut open));
            }
            at += CHUNK_HEADER + length;
        }
        records
    }

    #[test]
    fn records_of_any_length_are_framed() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, 100, 32_600, 32_700, 32_761, 70_000] {
            let path = dir.path().join(format!("{length}.wandb"));
            let run = RunHeader {
                id: "abcd1234",
                entity: "e",
                project: "p",
                name: "n",
                config: &[("uid".into(), "7".into())],
                started_at: 1_790_000_000,
            };
            let mut log = OfflineLog::create(&path, &run).unwrap();
            let row = Row::from([("text".into(), "x".repeat(length).into())]);
            for step in 0..3 {
                log.history(step, &row, &row).unwrap();
            }
            log.exit(0, 5).unwrap();
            assert_eq!(read(&std::fs::read(&path).unwrap()).len(), 2 + 3 * 2 + 1);
        }
    }
}

//! The journal of steps: one JSON document a line, signed apart, old ones compressed.
//!
//! `steps.jsonl` grows by a line a step, `steps.jsonl.sig` by a line of signature. A record is
//! part of the journal once its line is complete; half a line, left by a crash, is cut off. A file
//! with damaged lines is set aside whole and goes on with the others: a record lost to the disk
//! must not keep the validator from its work.

mod reading;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::{
    clock,
    file::{self, FileError},
};

use self::reading::lines;
pub use self::reading::{newest, read, unpack};
use super::StepRecord;
use subnet::Hotkey;

/// The journal that is being written.
pub const CURRENT: &str = "steps.jsonl";

/// What is signed begins with this, so that no signature of ours can pass for another's purpose.
const PURPOSE: &[u8] = b"finetune-vali step record v1\n";

/// One record, even of 256 models and thousands of samples, is far below this.
const MAX_LINE: u64 = 256 << 20;

/// Level of compression; higher ones gain nothing on random digits.
const ZSTD_LEVEL: i32 = 9;

/// One line of a signature file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub step: u64,
    /// SHA-256 of the record's line, without its end, in hex.
    pub sha256: String,
    pub hotkey: Hotkey,
    /// Signature over [`signed_bytes`], in hex.
    pub signature: String,
}

/// Returns the bytes that are signed for a record's line.
pub fn signed_bytes(line: &[u8]) -> Vec<u8> {
    let mut bytes = PURPOSE.to_vec();
    bytes.extend_from_slice(&Sha256::digest(line));
    bytes
}

/// A line of a journal with what it says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The line as it was written and signed.
    pub line: Vec<u8>,
    pub record: StepRecord,
    /// Its signature, if there is one.
    pub signature: Option<Signature>,
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such file.
    #[error("there is no step record {}", .0.display())]
    Missing(PathBuf),
    /// A line is not a record.
    #[error("{} line {line} is not a step record", path.display())]
    Malformed {
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The journal, open for writing.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    rotate_at: u64,
    keep: usize,
}

impl Journal {
    /// Opens the journal of a folder: cuts off what a crash left incomplete, sets aside what is
    /// damaged. Beyond `rotate_at` bytes the current file is compressed; `keep` compressed ones stay.
    pub fn open(folder: &Path, rotate_at: u64, keep: usize) -> Result<Self, JournalError> {
        file::create_dir(folder)?;
        file::clear_temporary(folder)?;
        let journal = Self {
            folder: folder.to_owned(),
            rotate_at,
            keep,
        };
        let current = journal.current();
        cut_half_line(&current).map_err(FileError::on("repair", &current))?;
        cut_half_line(&signatures_of(&current)).map_err(FileError::on("repair", &current))?;
        journal.set_damage_aside()?;
        journal.finish_rotation()?;
        Ok(journal)
    }

    /// Returns the file that is being written.
    pub fn current(&self) -> PathBuf {
        self.folder.join(CURRENT)
    }

    /// Appends a record with its signature; `sign` is given the [`signed_bytes`].
    pub fn append(
        &self,
        record: &StepRecord,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<(), JournalError> {
        let current = self.current();
        let mut line = serde_json::to_vec(record).map_err(|source| JournalError::Malformed {
            path: current.clone(),
            line: 0,
            source,
        })?;
        let signature = Signature {
            step: record.step,
            sha256: hex::encode(Sha256::digest(&line)),
            hotkey: record.hotkey,
            signature: hex::encode(sign(&signed_bytes(&line))),
        };
        let mut signed = serde_json::json!(signature).to_string().into_bytes();
        line.push(b'\n');
        signed.push(b'\n');
        // The signature goes first: a record that is there is a signed one.
        file::append(&signatures_of(&current), &signed)?;
        file::append(&current, &line)?;
        // The record is written: whatever hinders the rotation must not make the step again.
        if fs::metadata(&current).is_ok_and(|meta| meta.len() > self.rotate_at)
            && let Err(error) = self.set_damage_aside().and_then(|()| self.rotate())
        {
            tracing::warn!(%error, "could not compress the journal: trying with the next record");
        }
        Ok(())
    }

    /// Returns the last record that can be read, of the current file or the compressed ones.
    pub fn last(&self) -> Result<Option<StepRecord>, JournalError> {
        let newest_first = self.rotated()?.into_iter().rev();
        for path in [self.current()].into_iter().chain(newest_first) {
            match read(&path) {
                Ok(mut entries) => {
                    if let Some(entry) = entries.pop() {
                        return Ok(Some(entry.record));
                    }
                }
                Err(JournalError::Missing(_)) => {}
                Err(error) => {
                    tracing::error!(%error, "passing over a damaged file of records");
                }
            }
        }
        Ok(None)
    }

    /// Sets a current file with damaged lines aside, and goes on with those that are whole.
    fn set_damage_aside(&self) -> Result<(), JournalError> {
        let current = self.current();
        let lines = match lines(&current) {
            Err(JournalError::Missing(_)) => return Ok(()),
            lines => lines?,
        };
        let is_record = |line: &&Vec<u8>| serde_json::from_slice::<StepRecord>(line).is_ok();
        let whole: Vec<&Vec<u8>> = lines.iter().filter(is_record).collect();
        let damaged = lines.iter().filter(|line| !line.is_empty()).count() - whole.len();
        if damaged == 0 {
            return Ok(());
        }
        let aside = self
            .folder
            .join(format!("{CURRENT}.{}.aside", clock::unix_seconds()));
        let before = fs::read(&current).map_err(FileError::on("read", &current))?;
        file::write_atomic(&aside, &before)?;
        let mut kept = Vec::with_capacity(before.len());
        for line in whole {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        file::write_atomic(&current, &kept)?;
        tracing::error!(
            damaged,
            aside = %aside.display(),
            "step records are damaged: the file is set aside, the others are kept"
        );
        Ok(())
    }

    /// Compresses the current file under the numbers of its steps and begins a new one.
    fn rotate(&self) -> Result<(), JournalError> {
        let current = self.current();
        let entries = read(&current)?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let name = rotated_name(first.record.step, last.record.step);
        let rotated = self.folder.join(name);
        let text = fs::read(&current).map_err(FileError::on("read", &current))?;
        let packed = zstd::encode_all(text.as_slice(), ZSTD_LEVEL)
            .map_err(FileError::on("compress", &current))?;
        let signatures = fs::read(signatures_of(&current)).unwrap_or_default();
        file::write_atomic(&signatures_of(&rotated), &signatures)?;
        // From here on the compressed file holds; `finish_rotation` does the rest after a crash.
        file::write_atomic(&rotated, &packed)?;
        self.finish_rotation()
    }

    fn finish_rotation(&self) -> Result<(), JournalError> {
        let mut rotated = self.rotated()?;
        let current = self.current();
        if let Some(newest) = rotated.last()
            && let Some(entry) = first_entry(&current)?
            && newest.file_name().is_some_and(|name| {
                name.to_string_lossy()
                    .starts_with(&first_of_name(entry.step))
            })
        {
            for path in [signatures_of(&current), current] {
                file::remove_file(&path)?;
            }
        }
        let surplus = rotated.len().saturating_sub(self.keep);
        for old in rotated.drain(..surplus) {
            file::remove_file(&signatures_of(&old))?;
            file::remove_file(&old)?;
        }
        Ok(())
    }

    /// Returns the compressed files, oldest first.
    fn rotated(&self) -> Result<Vec<PathBuf>, FileError> {
        rotated(&self.folder)
    }
}

/// Returns the compressed files of a journal's folder, oldest first.
pub fn rotated(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = fs::read_dir(folder).map_err(FileError::on("list", folder))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.zst"))
        .collect();
    // The numbers are padded, so names sort as steps do.
    paths.sort();
    Ok(paths)
}

/// Returns the first and the last step of a compressed file, by its name.
pub fn steps_of(rotated: &Path) -> Option<(u64, u64)> {
    let name = rotated.file_name()?.to_str()?;
    let (first, last) = name
        .strip_prefix("steps-")?
        .strip_suffix(".jsonl.zst")?
        .split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Returns the first record of a file, without reading the others.
fn first_entry(path: &Path) -> Result<Option<StepRecord>, JournalError> {
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    let reader = BufReader::new(file.take(MAX_LINE));
    for (index, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(FileError::on("read", path))?;
        if line.is_empty() {
            continue;
        }
        let malformed = |source| JournalError::Malformed {
            path: path.to_owned(),
            line: index + 1,
            source,
        };
        return serde_json::from_slice(&line).map(Some).map_err(malformed);
    }
    Ok(None)
}

/// Returns the file of signatures of a journal file.
pub fn signatures_of(path: &Path) -> PathBuf {
    let path = path.to_string_lossy();
    PathBuf::from(format!("{}.sig", path.trim_end_matches(".zst")))
}

fn first_of_name(first: u64) -> String {
    format!("steps-{first:010}-")
}

fn rotated_name(first: u64, last: u64) -> String {
    format!("{}{last:010}.jsonl.zst", first_of_name(first))
}

pub(crate) fn cut_half_line(path: &Path) -> io::Result<()> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    if whole < bytes.len() {
        tracing::warn!(path = %path.display(), cut = bytes.len() - whole, "cut off half a line");
        OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(whole as u64)?;
    }
    Ok(())
}

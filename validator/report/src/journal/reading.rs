//! Reading a journal: whole, from its end, or one record that a stranger has published.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use shared::file::{self, FileError};

use super::{
    CURRENT, Entry, JournalError, MAX_LINE, Signature, StepRecord, rotated, signatures_of, steps_of,
};

/// Reads a journal or a single record, compressed or not, with the signatures beside it.
pub fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
    entries(path, lines(path)?, &signatures(path)?)
}

/// Reads one record that a stranger has published: packed, of at most so many bytes, with a line of signature.
pub fn unpack(
    name: &Path,
    packed: &[u8],
    signature: &[u8],
    max_bytes: u64,
) -> Result<Vec<Entry>, JournalError> {
    let unpacked = || {
        let mut text = Vec::new();
        let decoder = zstd::Decoder::new(packed)?;
        decoder.take(max_bytes + 1).read_to_end(&mut text)?;
        if text.len() as u64 > max_bytes {
            let why = format!("it unpacks to more than {max_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(text)
    };
    let text = unpacked().map_err(FileError::on("unpack", name))?;
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    entries(name, lines.collect(), &signature_lines(signature))
}

fn entries(
    path: &Path,
    lines: Vec<Vec<u8>>,
    signatures: &[Signature],
) -> Result<Vec<Entry>, JournalError> {
    let malformed = |line| {
        move |source| JournalError::Malformed {
            path: path.to_owned(),
            line,
            source,
        }
    };
    let mut entries = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        let record: StepRecord = serde_json::from_slice(&line).map_err(malformed(index + 1))?;
        entries.push(Entry {
            signature: signature_of(signatures, record.step),
            line,
            record,
        });
    }
    Ok(entries)
}

/// Returns the newest `most` steps of a journal's folder after step `after`, oldest first. Lines that are damaged are
/// left out. Of the current file only what is asked for is parsed, and no compressed file is read that can't hold any.
pub fn newest(folder: &Path, after: Option<u64>, most: usize) -> Result<Vec<Entry>, JournalError> {
    let mut found = BTreeMap::new();
    let current = folder.join(CURRENT);
    // Before the compressed files are listed: a rotation in between shows a step twice, and never not at all.
    for entry in last_entries(&current, after, most)? {
        found.insert(entry.record.step, entry);
    }
    let is_newer = |step: u64| after.is_none_or(|after| step > after);
    for path in rotated(folder)?.iter().rev() {
        if found.len() >= most || !steps_of(path).is_some_and(|(_, last)| is_newer(last)) {
            break;
        }
        for entry in read(path)? {
            let known = found.get(&entry.record.step);
            let is_signed = known.is_some_and(|known: &Entry| known.signature.is_some());
            if is_newer(entry.record.step) && !is_signed {
                found.insert(entry.record.step, entry);
            }
        }
    }
    let surplus = found.len().saturating_sub(most);
    Ok(found.into_values().skip(surplus).collect())
}

/// Returns the last entries of an uncompressed file, read from its end.
fn last_entries(path: &Path, after: Option<u64>, most: usize) -> Result<Vec<Entry>, JournalError> {
    let Some(bytes) = file::read_limited(path, MAX_LINE)? else {
        return Ok(Vec::new());
    };
    let signatures = signatures(path)?;
    // The last line may be one that is just being written.
    let whole = bytes.iter().rposition(|b| *b == b'\n').unwrap_or(0);
    let lines = bytes[..whole].rsplit(|byte| *byte == b'\n');
    let mut found = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let Ok(record) = serde_json::from_slice::<StepRecord>(line) else {
            continue;
        };
        if found.len() == most || after.is_some_and(|after| record.step <= after) {
            break;
        }
        found.push(Entry {
            line: line.to_vec(),
            signature: signature_of(&signatures, record.step),
            record,
        });
    }
    found.reverse();
    Ok(found)
}

fn signatures(path: &Path) -> Result<Vec<Signature>, FileError> {
    let bytes = file::read_limited(&signatures_of(path), MAX_LINE)?.unwrap_or_default();
    Ok(signature_lines(&bytes))
}

fn signature_lines(bytes: &[u8]) -> Vec<Signature> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// A crash between signature and record leaves two signatures of a step; the later holds.
fn signature_of(signatures: &[Signature], step: u64) -> Option<Signature> {
    signatures.iter().rfind(|s| s.step == step).cloned()
}

pub(super) fn lines(path: &Path) -> Result<Vec<Vec<u8>>, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JournalError::Missing(path.to_owned()));
        }
        opened => opened.map_err(FileError::on("open", path))?,
    };
    let read = || {
        let reader: Box<dyn Read> = if path.extension() == Some("zst".as_ref()) {
            Box::new(zstd::Decoder::new(file)?)
        } else {
            Box::new(file)
        };
        BufReader::new(reader.take(MAX_LINE))
            .split(b'\n')
            .collect::<io::Result<Vec<_>>>()
    };
    Ok(read().map_err(FileError::on("read", path))?)
}

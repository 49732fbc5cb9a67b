//! Whole lines of a journal, from where the last reader stopped.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use sha2::{Digest, Sha256};

/// One record, even of 256 models and thousands of samples, is far below this.
const MAX_LINE: u64 = 256 << 20;

/// So much before the place where reading stopped tells whether the file is still the one that was read.
const TAIL: u64 = 512;

/// A place in a file that grows at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReadPosition {
    pub(crate) offset: u64,
    /// Digest of what lies before it.
    pub(crate) tail: String,
}

impl ReadPosition {
    /// Returns the place behind so many bytes of a file; `None` if the file is shorter.
    fn at(file: &mut File, offset: u64) -> io::Result<Option<Self>> {
        if file.metadata()?.len() < offset {
            return Ok(None);
        }
        let from = offset.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(offset - from).read_to_end(&mut bytes)?;
        let tail = hex::encode(Sha256::digest(&bytes));
        Ok(Some(Self { offset, tail }))
    }
}

/// Hands over the whole lines behind a place, or all of them if the file is not the one that was read; returns the
/// place behind the last. A file that is not there has no lines.
pub(crate) fn behind<E: From<io::Error>>(
    path: &Path,
    place: &ReadPosition,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<ReadPosition, E> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ReadPosition::default()),
        opened => opened?,
    };
    let same = ReadPosition::at(&mut file, place.offset)?.is_some_and(|found| found == *place);
    let mut offset = if same { place.offset } else { 0 };
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::new(&mut file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        // Half a line is being written, or was left by a crash.
        if line.pop() != Some(b'\n') {
            break;
        }
        offset += read as u64;
        take(&line)?;
    }
    Ok(ReadPosition::at(&mut file, offset)?.unwrap_or_default())
}

/// Hands over the lines of a compressed file.
pub(crate) fn compressed<E: From<io::Error>>(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = BufReader::new(zstd::Decoder::new(File::open(path)?)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Ok(());
        }
        take(&line)?;
    }
}

//! The bytes of a file: in memory, on disk, or made up as they are sent.

use std::{io, io::SeekFrom, path::PathBuf};

use axum::body::{Body, Bytes};
use futures::stream;
use sha2::{Digest as _, Sha256};
use shared::file::FileError;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

const CHUNK: usize = 256 * 1024;

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// On disk.
    Disk {
        /// Where.
        path: PathBuf,
        /// How many bytes.
        size: u64,
        /// Its SHA-256, in hex.
        sha256: String,
    },
    /// A head in memory, then zeros up to `size`: costs neither disk nor memory. The hub claims
    /// `sha256` for it, which is not checked, for nobody could in a reasonable time.
    Virtual {
        /// The first bytes.
        head: Bytes,
        /// How many bytes in all.
        size: u64,
        /// The SHA-256 claimed, in hex.
        sha256: String,
    },
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Content {
    /// Takes a file on disk, whose bytes must not change from now on.
    pub fn from_disk(path: PathBuf) -> Result<Self, FileError> {
        let hash = || {
            let mut file = std::fs::File::open(&path)?;
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; CHUNK];
            let mut size = 0;
            loop {
                let read = io::Read::read(&mut file, &mut buffer)?;
                if read == 0 {
                    return Ok((size, hex::encode(hasher.finalize())));
                }
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        };
        let (size, sha256) = hash().map_err(FileError::on("read", &path))?;
        Ok(Self::Disk { path, size, sha256 })
    }

    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Disk { size, .. } | Self::Virtual { size, .. } => *size,
        }
    }

    /// Returns the SHA-256 in hex.
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Self::Disk { sha256, .. } | Self::Virtual { sha256, .. } => sha256.clone(),
        }
    }

    /// Returns the whole of a small content; `None` for one that is not in memory.
    pub const fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Disk { .. } | Self::Virtual { .. } => None,
        }
    }

    /// Returns the bytes `start..end` as a body. `end` is at most [`Content::size`].
    pub(super) async fn body(&self, start: u64, end: u64) -> io::Result<Body> {
        match self {
            Self::Bytes(bytes) => Ok(Body::from(bytes.slice(index(start)..index(end)))),
            Self::Disk { path, .. } => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(SeekFrom::Start(start)).await?;
                let stream = ReaderStream::with_capacity(file.take(end - start), CHUNK);
                Ok(Body::from_stream(stream))
            }
            Self::Virtual { head, .. } => {
                let chunks = stream::iter(VirtualChunks {
                    head: head.clone(),
                    at: start,
                    end,
                });
                Ok(Body::from_stream(chunks))
            }
        }
    }
}

struct VirtualChunks {
    head: Bytes,
    at: u64,
    end: u64,
}

impl Iterator for VirtualChunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        if self.at >= self.end {
            return None;
        }
        let left = self.end - self.at;
        let head_left = (self.head.len() as u64).saturating_sub(self.at);
        let chunk = if head_left > 0 {
            let from = index(self.at);
            self.head.slice(from..from + index(head_left.min(left)))
        } else {
            Bytes::from_static(&ZEROS[..index(left.min(CHUNK as u64))])
        };
        self.at += chunk.len() as u64;
        Some(Ok(chunk))
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

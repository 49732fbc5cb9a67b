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
    Bytes(Bytes),
    Disk {
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
    /// A head, then one tile many times, then a tail: a large file of real content that costs the
    /// memory of one tile. Its SHA-256 is claimed as well.
    Tiled {
        /// The first bytes.
        head: Bytes,
        tile: Bytes,
        tiles: u64,
        /// The last bytes.
        tail: Bytes,
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
            Self::Tiled {
                head,
                tile,
                tiles,
                tail,
                ..
            } => (head.len() + tail.len()) as u64 + tile.len() as u64 * tiles,
        }
    }

    /// Returns the SHA-256 in hex.
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Self::Disk { sha256, .. }
            | Self::Virtual { sha256, .. }
            | Self::Tiled { sha256, .. } => sha256.clone(),
        }
    }

    /// Returns the whole of a small content; `None` for one that is not in memory.
    pub const fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Disk { .. } | Self::Virtual { .. } | Self::Tiled { .. } => None,
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
            Self::Virtual { .. } | Self::Tiled { .. } => {
                let chunks = stream::iter(Chunks {
                    content: self.clone(),
                    at: start,
                    end,
                });
                Ok(Body::from_stream(chunks))
            }
        }
    }

    /// Returns some bytes of a made-up content from a position on.
    fn from(&self, position: u64) -> Bytes {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        let zeros = Bytes::from_static(&ZEROS);
        let (head, tile, tiles, tail) = match self {
            Self::Bytes(_) | Self::Disk { .. } => return Bytes::new(),
            Self::Virtual { head, .. } => (head, &zeros, u64::MAX, &zeros),
            Self::Tiled {
                head,
                tile,
                tiles,
                tail,
                ..
            } => (head, tile, *tiles, tail),
        };
        let Some(beyond) = position.checked_sub(head.len() as u64) else {
            return head.slice(index(position)..);
        };
        let length = tile.len() as u64;
        if beyond / length < tiles {
            return tile.slice(index(beyond % length)..);
        }
        tail.slice(index(beyond - length * tiles)..)
    }
}

/// The bytes of a content that is made up, a part at a time.
struct Chunks {
    content: Content,
    at: u64,
    end: u64,
}

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let mut chunk = self.content.from(self.at);
        chunk.truncate(index(self.end - self.at).min(CHUNK));
        self.at += chunk.len() as u64;
        Some(Ok(chunk))
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

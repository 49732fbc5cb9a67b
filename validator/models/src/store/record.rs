//! What was verified of a model, beside its folder.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{ContentHash, norms::Projection};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, as_text};

/// Version of the format of records.
pub const FORMAT: u32 = 1;

/// What was verified of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Version of this format: [`super::RECORD_FORMAT`].
    pub format: u32,
    #[serde(with = "as_text")]
    pub content_hash: ContentHash,
    /// Its files, sorted by path.
    pub files: Vec<FileRecord>,
    /// Where it was fetched from first.
    pub repository: String,
    /// The commit of the repository.
    pub commit: String,
    /// Norms of its projections, unrounded; `None` where the norm is NaN.
    pub norms: Vec<(usize, Projection, Option<f64>)>,
    /// Digests of its tensors, by name.
    pub tensors: BTreeMap<String, TensorDigest>,
    /// When its last byte was verified.
    pub added: Timestamp,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path in the model's folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, which names its blob.
    pub sha256: Digest,
}

/// Tells tensors apart well enough to report near-copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorDigest {
    /// CRC-32 of its bytes: enough to tell copies, not forgeries.
    pub crc32: u32,
    /// Its size in bytes.
    pub bytes: u64,
}

impl ModelRecord {
    /// Returns the bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

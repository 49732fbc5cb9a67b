//! What a verification found out, whatever its outcome.

use model::ContentHash;
use serde::{Serialize, Serializer};

use super::{
    Digest, Rejection,
    metadata::Metadata,
    rejection::Judged,
    store::{ModelRecord, StoredModel},
};

/// The outcome in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All that was looked at is as it should be.
    Accepted,
    /// The model is at fault.
    Refused,
    /// Hub or machine are at fault.
    Retry,
}

/// What the verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The listing of the repository and its small files.
    Metadata,
    /// The headers of the weights, too.
    Headers,
    /// Every byte of the model.
    Bytes,
}

/// How the claimed hash fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimMatch {
    /// It is the content hash.
    Plain,
    /// It is the content hash bound to the hotkey.
    Bound,
}

/// One file of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportedFile {
    /// Path relative to the repository.
    pub path: String,
    /// Bytes, by the hub's listing.
    pub bytes: Option<u64>,
    /// SHA-256, if it is known.
    pub sha256: Option<Digest>,
}

/// What a verification found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether the model is accepted.
    pub verdict: Verdict,
    /// Why it is not accepted, if so.
    pub reason: Option<String>,
    /// What the verdict rests on.
    pub stage: Stage,
    /// The content hash, as far as it could be computed.
    #[serde(serialize_with = "optional_text")]
    pub content_hash: Option<ContentHash>,
    /// How the claimed hash fits.
    pub claim: Option<ClaimMatch>,
    /// Bytes of bodies received for this.
    pub bytes_fetched: u64,
    /// Addresses of those who served this: the hub, mirrors of it.
    pub origins: Vec<String>,
    /// Whether a mirror of the hub is among them.
    pub mirrored: bool,
    /// Bytes of all files of the repository.
    pub repository_bytes: Option<u64>,
    /// Parameter count, tied tensors counted once.
    pub parameters: Option<u64>,
    /// The model's files: those that are hashed, in that order.
    pub files: Vec<ReportedFile>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            verdict: Verdict::Retry,
            reason: None,
            stage: Stage::Metadata,
            content_hash: None,
            claim: None,
            bytes_fetched: 0,
            origins: Vec::new(),
            mirrored: false,
            repository_bytes: None,
            parameters: None,
            files: Vec::new(),
        }
    }
}

impl Report {
    pub(super) fn files_of(&mut self, metadata: &Metadata) {
        let files = metadata.manifest.files.iter();
        let files = files.map(|(path, entry)| ReportedFile {
            path: path.clone(),
            bytes: entry.size,
            sha256: metadata.digests.get(path).copied(),
        });
        self.files = in_walk_order(files.collect());
    }

    pub(super) fn record(&mut self, record: &ModelRecord) {
        let files = record.files.iter();
        let files = files.map(|file| ReportedFile {
            path: file.path.clone(),
            bytes: Some(file.size),
            sha256: Some(file.sha256),
        });
        self.files = in_walk_order(files.collect());
    }

    pub(super) fn conclude(&mut self, outcome: &Judged<Option<StoredModel>>) {
        (self.verdict, self.reason) = match outcome {
            Ok(_) => (Verdict::Accepted, None),
            Err(refused @ Rejection::Refused { .. }) => {
                (Verdict::Refused, Some(refused.to_string()))
            }
            Err(retry @ Rejection::Retry { .. }) => (Verdict::Retry, Some(retry.to_string())),
        };
    }
}

/// Sorts files as they are hashed: those of a folder before its sub-folders.
fn in_walk_order(mut files: Vec<ReportedFile>) -> Vec<ReportedFile> {
    files.sort_by(|a, b| model::hash::walk_order(a.path.as_ref(), b.path.as_ref()));
    files
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn optional_text<S: Serializer>(
    hash: &Option<ContentHash>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match hash {
        Some(hash) => serializer.collect_str(hash),
        None => serializer.serialize_none(),
    }
}

//! One pass over the bytes of a file: SHA-256, norms and tensor digests together.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use model::{
    Dtype,
    header::Header,
    norms::{FileNorms, NormLimits, Projection, ProjectionNorms},
};
use sha2::{Digest as _, Sha256};

use super::{
    Digest,
    metadata::SeenHeader,
    rejection::{Judged, Rejection},
    store::TensorDigest,
};

/// Judges the norms of a model over all its files, as early as they are certain.
#[derive(Debug)]
pub(super) struct NormJudge {
    pub(super) layers: usize,
    pub(super) dtype: Dtype,
    pub(super) limits: NormLimits,
    norms: Mutex<ProjectionNorms>,
}

impl NormJudge {
    pub(super) fn new(layers: usize, dtype: Dtype, limits: NormLimits) -> Self {
        Self {
            layers,
            dtype,
            limits,
            norms: Mutex::default(),
        }
    }

    /// Adds norms that are complete; large ones only add up, so the first refusal is final.
    pub(super) fn add(&self, done: &ProjectionNorms) -> Judged<()> {
        let mut norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        norms.extend(done.clone());
        let verdict = norms.judge(self.layers, self.dtype, &self.limits);
        if verdict.accepted() {
            Ok(())
        } else {
            Err(Rejection::refused(verdict))
        }
    }

    /// Returns the norms as a record keeps them: `None` where the norm is NaN.
    pub(super) fn table(&self) -> Vec<(usize, Projection, Option<f64>)> {
        let norms = self.norms.lock().unwrap_or_else(PoisonError::into_inner);
        norms
            .iter()
            .filter(|(layer, ..)| *layer < self.layers)
            .map(|(layer, projection, norm)| {
                (layer, projection, Some(norm).filter(|norm| !norm.is_nan()))
            })
            .collect()
    }
}

/// What one pass over a file finds out.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) digest: Digest,
    pub(super) tensors: BTreeMap<String, TensorDigest>,
}

/// A pass over a file, fed in pieces of any size.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    sha256: Sha256,
    weights: Option<Weights<'a>>,
}

#[derive(Debug)]
struct Weights<'a> {
    judge: &'a NormJudge,
    /// The first bytes, until the data begin.
    head: Sha256,
    head_digest: Digest,
    norms: FileNorms,
    judged: usize,
    tensors: TensorDigests,
    position: u64,
    data_start: u64,
}

impl<'a> Scan<'a> {
    /// Prepares for a file that is no weights file.
    pub(super) fn plain() -> Self {
        Self {
            sha256: Sha256::new(),
            weights: None,
        }
    }

    /// Prepares for a weights file.
    pub(super) fn weights(seen: &SeenHeader, judge: &'a NormJudge) -> Self {
        let weights = Weights {
            judge,
            head: Sha256::new(),
            head_digest: seen.digest,
            norms: FileNorms::new(&seen.header),
            judged: 0,
            tensors: TensorDigests::new(&seen.header),
            position: 0,
            data_start: seen.header.data_start(),
        };
        Self {
            sha256: Sha256::new(),
            weights: Some(weights),
        }
    }

    /// Takes the next bytes; refuses as soon as the norms are certain to be out of bounds.
    pub(super) fn update(&mut self, bytes: &[u8]) -> Judged<()> {
        self.sha256.update(bytes);
        self.weights
            .as_mut()
            .map_or(Ok(()), |weights| weights.update(bytes))
    }

    /// Ends the pass.
    pub(super) fn finish(self) -> Scanned {
        let digest = Digest(self.sha256.finalize().into());
        let tensors = self
            .weights
            .map(|weights| weights.tensors.done)
            .unwrap_or_default();
        Scanned { digest, tensors }
    }
}

impl Weights<'_> {
    fn update(&mut self, bytes: &[u8]) -> Judged<()> {
        self.check_head(bytes)?;
        self.norms.update(bytes);
        self.tensors.update(bytes);
        self.position += bytes.len() as u64;
        let done = self.norms.done();
        if done.len() > self.judged {
            self.judged = done.len();
            self.judge.add(done)?;
        }
        Ok(())
    }

    /// The header that was judged must be the one that arrives.
    fn check_head(&mut self, bytes: &[u8]) -> Judged<()> {
        let left = self.data_start.saturating_sub(self.position);
        if left == 0 {
            return Ok(());
        }
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.head.update(&bytes[..taken]);
        if taken as u64 == left && Digest(self.head.clone().finalize().into()) != self.head_digest {
            return Err(Rejection::outside(
                "the header of the weights changed while it was fetched",
            ));
        }
        Ok(())
    }
}

/// Digests of the tensors of a file, computed in one pass.
#[derive(Debug)]
struct TensorDigests {
    /// Tensors to come, the next one last: name, start and end in the file.
    ahead: Vec<(String, u64, u64)>,
    position: u64,
    crc32: crc32fast::Hasher,
    done: BTreeMap<String, TensorDigest>,
}

impl TensorDigests {
    fn new(header: &Header) -> Self {
        let start = header.data_start();
        let mut ahead: Vec<_> = header
            .in_file_order()
            .into_iter()
            .map(|(name, info)| {
                (
                    name.to_owned(),
                    start + info.bytes.start,
                    start + info.bytes.end,
                )
            })
            .collect();
        ahead.reverse();
        Self {
            ahead,
            position: 0,
            crc32: crc32fast::Hasher::new(),
            done: BTreeMap::new(),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        let first = self.position;
        self.position += bytes.len() as u64;
        while let Some((_, start, end)) = self.ahead.last() {
            let from = start.max(&first) - first;
            if from > bytes.len() as u64 {
                return;
            }
            let to = (*end).min(self.position) - first;
            self.crc32.update(&bytes[from as usize..to as usize]);
            if *end > self.position {
                return;
            }
            if let Some((name, start, end)) = self.ahead.pop() {
                let digest = TensorDigest {
                    crc32: std::mem::take(&mut self.crc32).finalize(),
                    bytes: end - start,
                };
                self.done.insert(name, digest);
            }
        }
    }
}

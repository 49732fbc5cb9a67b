//! One pass over the bytes of a file: SHA-256, norms and tensor digests together.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Mutex, PoisonError},
};

use model::{
    Dtype,
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

/// The tensor whose norm made the verdict certain, and its bytes' place and digest: to be read once
/// more before a model is refused on the word of bytes that nothing vouches for yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) bytes: Range<u64>,
    pub(super) crc32: u32,
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
    weights: Option<WeightsScan<'a>>,
}

#[derive(Debug)]
struct WeightsScan<'a> {
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
    /// Prepares for a file that is not a weights file.
    pub(super) fn plain() -> Self {
        Self {
            sha256: Sha256::new(),
            weights: None,
        }
    }

    /// Prepares for a weights file.
    pub(super) fn weights(seen: &SeenHeader, judge: &'a NormJudge) -> Self {
        let weights = WeightsScan {
            judge,
            head: Sha256::new(),
            head_digest: seen.digest,
            norms: FileNorms::new(&seen.loaded),
            judged: 0,
            tensors: TensorDigests::new(seen),
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

    /// Returns what a refusal rests on.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        self.weights.as_ref()?.tensors.last_projection.clone()
    }

    pub(super) fn finish(self) -> Scanned {
        let digest = Digest(self.sha256.finalize().into());
        let tensors = self
            .weights
            .map(|weights| weights.tensors.done)
            .unwrap_or_default();
        Scanned { digest, tensors }
    }
}

impl WeightsScan<'_> {
    fn update(&mut self, mut bytes: &[u8]) -> Judged<()> {
        // In steps that end where a tensor ends, so that a refusal rests on the last one.
        while !bytes.is_empty() {
            let step = self.tensors.bytes_to_end().min(bytes.len() as u64) as usize;
            let (now, later) = bytes.split_at(step);
            self.step(now)?;
            bytes = later;
        }
        Ok(())
    }

    fn step(&mut self, bytes: &[u8]) -> Judged<()> {
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
    /// Where the projections begin.
    projections: BTreeSet<u64>,
    position: u64,
    crc32: crc32fast::Hasher,
    last_projection: Option<Evidence>,
    done: BTreeMap<String, TensorDigest>,
}

impl TensorDigests {
    fn new(seen: &SeenHeader) -> Self {
        let header = &seen.header;
        let start = header.data_start();
        let loaded = seen.loaded.tensors().iter();
        let projections = loaded
            .filter(|(name, _)| Projection::of_tensor(name).is_some())
            .map(|(_, info)| start + info.bytes.start)
            .collect();
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
            projections,
            position: 0,
            crc32: crc32fast::Hasher::new(),
            last_projection: None,
            done: BTreeMap::new(),
        }
    }

    /// Returns the bytes up to the end of the tensor that is on its way.
    fn bytes_to_end(&self) -> u64 {
        let next = self
            .ahead
            .iter()
            .rev()
            .map(|(_, _, end)| end - self.position);
        next.into_iter().find(|left| *left > 0).unwrap_or(u64::MAX)
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
                let crc32 = std::mem::take(&mut self.crc32).finalize();
                if self.projections.range(start..end).next().is_some() {
                    self.last_projection = Some(Evidence {
                        bytes: start..end,
                        crc32,
                    });
                }
                self.done.insert(
                    name,
                    TensorDigest {
                        crc32,
                        bytes: end - start,
                    },
                );
            }
        }
    }
}

//! Copies: models of equal content, and models that share most of their tensors. Reported only.

use std::collections::BTreeMap;

use model::ContentHash;
use serde::{Serialize, Serializer};

use super::store::{ModelRecord, TensorDigest};

/// Share of equal bytes from which a model is called a near-copy: fine-tuning touches every
/// tensor, so that honest relatives share next to none.
pub const NEAR: f64 = 0.5;

/// Two models that share most of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NearCopy {
    /// The model that was here first.
    #[serde(serialize_with = "text")]
    pub first: ContentHash,
    /// The model that came later.
    #[serde(serialize_with = "text")]
    pub second: ContentHash,
    /// Share of the larger one's bytes that are in tensors of equal name and content.
    pub share: f64,
}

/// Returns the pairs of models that share at least [`NEAR`] of their bytes.
pub fn near_copies(records: &[ModelRecord]) -> Vec<NearCopy> {
    let mut by_age: Vec<&ModelRecord> = records.iter().collect();
    by_age.sort_by_key(|record| (record.added, record.content_hash));
    let mut pairs = Vec::new();
    for (index, second) in by_age.iter().enumerate() {
        for first in &by_age[..index] {
            let share = shared_bytes(&first.tensors, &second.tensors);
            if share >= NEAR {
                let (first, second) = (first.content_hash, second.content_hash);
                pairs.push(NearCopy {
                    first,
                    second,
                    share,
                });
            }
        }
    }
    pairs
}

fn shared_bytes(a: &BTreeMap<String, TensorDigest>, b: &BTreeMap<String, TensorDigest>) -> f64 {
    let bytes = |tensors: &BTreeMap<String, TensorDigest>| -> u64 {
        tensors.values().map(|tensor| tensor.bytes).sum()
    };
    let equal = a
        .iter()
        .filter(|(name, tensor)| b.get(*name) == Some(tensor));
    let equal: u64 = equal.map(|(_, tensor)| tensor.bytes).sum();
    match bytes(a).max(bytes(b)) {
        0 => 0.0,
        all => equal as f64 / all as f64,
    }
}

fn text<S: Serializer>(hash: &ContentHash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn record(id: u8, tensors: &[(&str, u32)]) -> ModelRecord {
        let digest = |(name, crc32): &(&str, u32)| {
            (
                (*name).to_owned(),
                TensorDigest {
                    crc32: *crc32,
                    bytes: 100,
                },
            )
        };
        ModelRecord {
            format: super::super::store::RECORD_FORMAT,
            content_hash: ContentHash::from_digest([id; 32]),
            files: Vec::new(),
            repository: "a/b".into(),
            commit: String::new(),
            norms: Vec::new(),
            tensors: tensors.iter().map(digest).collect(),
            added: Timestamp::from_second(i64::from(id)).unwrap(),
        }
    }

    #[test]
    fn one_changed_tensor_does_not_hide_a_copy() {
        let original = record(1, &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        let copy = record(2, &[("a", 1), ("b", 2), ("c", 3), ("d", 9)]);
        let other = record(3, &[("a", 5), ("b", 6), ("c", 3), ("d", 8)]);
        let found = near_copies(&[other, copy.clone(), original.clone()]);
        let expected = NearCopy {
            first: original.content_hash,
            second: copy.content_hash,
            share: 0.75,
        };
        assert_eq!(found, [expected]);
        assert_eq!(near_copies(&[record(1, &[]), record(2, &[])]), []);
    }
}

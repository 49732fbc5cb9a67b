//! The packing plan: which samples share a forward pass.
//!
//! It is made once per step and tokenizer and used for all its models: matrix kernels round
//! differently for different shapes, so only equal packs give equal models bit-equal losses.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tokens::TokenizedSample;

/// Packs of sample indices. Every sample is in exactly one pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackingPlan {
    packs: Vec<Vec<usize>>,
}

impl PackingPlan {
    /// Packs samples first-fit decreasing: longest first (earlier ones first among equals), each
    /// into the first pack where it fits within `pack_tokens` tokens. A longer sample has a pack
    /// to itself; with `pack_tokens` of 1 (or 0) every sample has, in the order given.
    pub fn new(samples: &[TokenizedSample], pack_tokens: usize) -> Self {
        if pack_tokens <= 1 {
            return Self {
                packs: (0..samples.len()).map(|index| vec![index]).collect(),
            };
        }
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(samples[index].ids.len()));
        let mut packs: Vec<(usize, Vec<usize>)> = Vec::new();
        for index in order {
            let tokens = samples[index].ids.len();
            match packs.iter_mut().find(|(free, _)| *free >= tokens) {
                Some((free, pack)) => {
                    *free -= tokens;
                    pack.push(index);
                }
                None => packs.push((pack_tokens.saturating_sub(tokens), vec![index])),
            }
        }
        Self {
            packs: packs.into_iter().map(|(_, pack)| pack).collect(),
        }
    }

    /// Returns the packs: indices into the samples the plan was made for.
    pub fn packs(&self) -> &[Vec<usize>] {
        &self.packs
    }

    /// Returns whether each of `samples` samples is in exactly one pack, as in any plan made here.
    pub fn covers(&self, samples: usize) -> bool {
        let mut seen = vec![false; samples];
        self.packs.iter().flatten().all(|&index| {
            seen.get_mut(index)
                .is_some_and(|seen| !std::mem::replace(seen, true))
        }) && seen.into_iter().all(|seen| seen)
    }

    /// Returns a digest (hex SHA-256) of the plan: equal digests, equal packs.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for pack in &self.packs {
            hasher.update((pack.len() as u64).to_le_bytes());
            for &index in pack {
                hasher.update((index as u64).to_le_bytes());
            }
        }
        hex::encode(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(lengths: &[usize]) -> Vec<TokenizedSample> {
        lengths
            .iter()
            .map(|&n| TokenizedSample {
                ids: vec![0; n],
                prompt_len: 0,
            })
            .collect()
    }

    #[test]
    fn longest_first_into_the_first_gap() {
        let plan = PackingPlan::new(&samples(&[3, 5, 2, 5, 12, 3]), 10);
        assert_eq!(plan.packs(), [vec![4], vec![1, 3], vec![0, 5, 2]]);
        let single = PackingPlan::new(&samples(&[3, 0, 5]), 1);
        assert_eq!(single.packs(), [vec![0], vec![1], vec![2]]);
        assert!(PackingPlan::new(&[], 8192).packs().is_empty());
        assert_ne!(plan.digest(), single.digest());
    }

    proptest! {
        #[test]
        fn every_sample_once_and_no_pack_too_large(
            lengths in prop::collection::vec(0..3000_usize, 0..200),
            pack_tokens in 0..9000_usize,
        ) {
            let samples = samples(&lengths);
            let plan = PackingPlan::new(&samples, pack_tokens);
            prop_assert!(plan.covers(samples.len()));
            prop_assert!(!plan.covers(samples.len() + 1));
            for pack in plan.packs() {
                let tokens: usize = pack.iter().map(|&index| lengths[index]).sum();
                let alone = pack.iter().filter(|&&index| lengths[index] > 0).count() <= 1;
                prop_assert!(alone || tokens <= pack_tokens);
            }
            prop_assert_eq!(plan.digest(), PackingPlan::new(&samples, pack_tokens).digest());
        }

        #[test]
        fn packs_are_more_than_half_full_on_average(
            lengths in prop::collection::vec(1..2048_usize, 2..200),
        ) {
            // Two packs at most half full would have been one.
            let plan = PackingPlan::new(&samples(&lengths), 8192);
            let total: usize = lengths.iter().sum();
            prop_assert!(plan.packs().len() <= total / 4096 + 1);
        }
    }
}

//! The sample set of a step: drawn with a seed, so that validators can agree on it.

use model::tokens::Conversation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::Record;
use subnet::{BlockNumber, Netuid};

/// A conversation to be scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Digest of its turns, see [`Record::id`].
    pub id: String,
    /// The turns; the last is the response.
    pub conversation: Conversation,
    /// Source and place in it, for people.
    pub origin: String,
}

/// The samples of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleSet {
    /// The samples, in the order of the draw.
    pub samples: Vec<Sample>,
    /// SHA-256 over the sample ids in order: equal digests, equal sets.
    pub digest: String,
    /// The sources, as `--samples` gives them.
    pub sources: Vec<String>,
    /// The seed of the draw.
    pub seed: u64,
    /// Age of the data in seconds if it comes from the cache.
    #[serde(default)]
    pub cached_age: Option<u64>,
}

impl SampleSet {
    /// Makes a set of samples in this order.
    pub fn new(samples: Vec<Sample>, sources: Vec<String>, seed: u64) -> Self {
        let mut hash = Sha256::new();
        for sample in &samples {
            hash.update(sample.id.as_bytes());
            hash.update(b"\n");
        }
        let digest = hex::encode(hash.finalize());
        Self {
            samples,
            digest,
            sources,
            seed,
            cached_age: None,
        }
    }
}

/// Draws `count` records with a seed. Each record's rank depends on the seed and its own content
/// only, so two validators whose records differ in a few still draw nearly the same set.
pub fn draw(records: &[Record], count: usize, seed: u64) -> Vec<Sample> {
    let mut ranked: Vec<([u8; 32], String, &Record)> = records
        .iter()
        .map(|record| {
            let id = record.id();
            let rank = Sha256::new()
                .chain_update(seed.to_le_bytes())
                .chain_update(&id)
                .finalize();
            (rank.into(), id, record)
        })
        .collect();
    ranked.sort_by(|(rank_a, a, _), (rank_b, b, _)| (rank_a, a).cmp(&(rank_b, b)));
    ranked.truncate(count);
    ranked
        .into_iter()
        .map(|(_, id, record)| Sample {
            id,
            conversation: record.conversation.clone(),
            origin: record.origin.clone(),
        })
        .collect()
}

/// How the seed of a draw is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seed {
    /// From the hash of the step's block, rounded down to the sync interval.
    #[default]
    Block,
    /// A new one each step.
    Random,
    /// This one plus the number of the step: the same steps again, each on samples of its own.
    Fixed(u64),
}

impl std::str::FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "block" => Ok(Self::Block),
            "random" => Ok(Self::Random),
            number => number
                .parse()
                .map(Self::Fixed)
                .map_err(|_| format!("{number:?} is none of block, random or a whole number")),
        }
    }
}

/// Returns the block whose hash seeds a step: the last multiple of `sync_blocks`.
pub fn sync_block(block: BlockNumber, sync_blocks: u64) -> BlockNumber {
    block - block % sync_blocks.max(1)
}

/// Returns the seed that validators of a subnet derive from a block's hash.
pub fn block_seed(block_hash: &[u8; 32], netuid: Netuid) -> u64 {
    let hash = Sha256::new()
        .chain_update(block_hash)
        .chain_update(netuid.0.to_le_bytes())
        .finalize();
    let mut seed = [0; 8];
    seed.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn records(numbers: impl IntoIterator<Item = u32>) -> Vec<Record> {
        numbers
            .into_iter()
            .map(|n| {
                let value = json!({"prompt": format!("p{n}"), "response": "r"});
                Record::read(&value).unwrap()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_draw_depends_on_content_and_seed_only(seed: u64, rotate in 0usize..50) {
            let all = records(0..50);
            let mut rotated = all.clone();
            rotated.rotate_left(rotate);
            let set = |records: &[Record]| SampleSet::new(draw(records, 10, seed), vec![], seed);
            prop_assert_eq!(set(&all), set(&rotated));
            prop_assert_eq!(draw(&all, 10, seed).len(), 10);
        }

        #[test]
        fn one_record_less_changes_one_sample_at_most(seed: u64, gone in 0u32..50) {
            let all = draw(&records(0..50), 10, seed);
            let fewer = draw(&records((0..50).filter(|n| *n != gone)), 10, seed);
            let kept = all.iter().filter(|sample| fewer.contains(sample)).count();
            prop_assert!(kept >= 9);
        }
    }

    #[test]
    fn the_block_seed_is_shared_within_an_interval() {
        assert_eq!(sync_block(725, 360), 720);
        assert_eq!(sync_block(719, 360), 360);
        assert_eq!(sync_block(5, 0), 5);
        let hash = [7; 32];
        assert_eq!(block_seed(&hash, Netuid(6)), block_seed(&hash, Netuid(6)));
        assert_ne!(block_seed(&hash, Netuid(6)), block_seed(&hash, Netuid(7)));
    }

    #[test]
    fn seeds_are_read_from_the_command_line() {
        assert_eq!("block".parse(), Ok(Seed::Block));
        assert_eq!("17".parse(), Ok(Seed::Fixed(17)));
        assert!(
            "x".parse::<Seed>()
                .unwrap_err()
                .contains("none of block, random")
        );
    }
}

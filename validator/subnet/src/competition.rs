//! Competitions: which models race against each other, and for what share of the reward.

use std::fmt;

use model::{ContentHash, hash::NotAContentHash};
use serde::{Deserialize, Serialize};

/// A competition's short name, such as `l3`. In a commitment it is the miner's word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CompetitionId(pub String);

impl From<&str> for CompetitionId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl fmt::Display for CompetitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tokenizer that all models of a competition share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenTokenizer", into = "WrittenTokenizer")]
pub struct FixedTokenizer {
    /// Its repository on the hub.
    pub repository: String,
    /// The commit that is to be used; the first one that works is kept if none is given.
    pub revision: Option<String>,
    /// What its files must hash to.
    pub content_hash: Option<ContentHash>,
}

/// What the subnet file may say: a repository alone, or with its pins.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a repository or { repository, revision, content_hash }"
)]
enum WrittenTokenizer {
    Repository(String),
    Pinned(PinnedTokenizer),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedTokenizer {
    repository: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_hash: Option<String>,
}

impl TryFrom<WrittenTokenizer> for FixedTokenizer {
    type Error = NotAContentHash;

    fn try_from(written: WrittenTokenizer) -> Result<Self, NotAContentHash> {
        let PinnedTokenizer {
            repository,
            revision,
            content_hash,
        } = match written {
            WrittenTokenizer::Pinned(pinned) => pinned,
            WrittenTokenizer::Repository(repository) => PinnedTokenizer {
                repository,
                revision: None,
                content_hash: None,
            },
        };
        let content_hash = content_hash.map(|text| text.parse()).transpose()?;
        Ok(Self {
            repository,
            revision,
            content_hash,
        })
    }
}

impl From<FixedTokenizer> for WrittenTokenizer {
    fn from(tokenizer: FixedTokenizer) -> Self {
        let FixedTokenizer {
            repository,
            revision,
            content_hash,
        } = tokenizer;
        if revision.is_none() && content_hash.is_none() {
            return Self::Repository(repository);
        }
        Self::Pinned(PinnedTokenizer {
            repository,
            revision,
            content_hash: content_hash.map(|hash| hash.to_string()),
        })
    }
}

impl fmt::Display for FixedTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            None => f.write_str(&self.repository),
            Some(revision) => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// The rules of one competition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Competition {
    /// Its short name, at most two characters.
    pub id: CompetitionId,
    /// The model class, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// Largest parameter count admitted, tied tensors counted once.
    pub max_parameters: u64,
    /// The fixed tokenizer; the model's own is used if there is none.
    #[serde(default)]
    pub tokenizer: Option<FixedTokenizer>,
    /// Share of the reward, above 0; the shares of a schedule add up to 1.
    pub reward_share: f64,
}

//! Competitions: which models race against each other, and for what share of the reward.

use std::fmt;

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
    /// Hub repository of the fixed tokenizer; the model's own is used if there is none.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// Share of the reward, above 0; the shares of a schedule add up to 1.
    pub reward_share: f64,
}

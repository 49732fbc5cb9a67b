//! What can be wrong with a validator: each cause with its end.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::status::Health;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub health: Health,
    pub since: Timestamp,
    /// What it is, in words.
    pub text: String,
}

/// What can be wrong. Each cause has one owner, which holds its [`Alarm`](crate::board::Alarm),
/// and an end, see [`Cause::ends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The chain does not answer.
    Chain,
    /// The chain as its endpoints have it is old.
    ChainLag,
    /// The netuid is another subnet's.
    Subnet,
    /// Our hotkey has no place on the subnet.
    Registration,
    /// No neuron committed a model of a competition.
    Commitments,
    /// There is no chain: the snapshot on disk stands in.
    OldChainData,
    /// The state can't be written.
    State,
    /// What came of the commitments can't be written.
    Tracker,
    /// Commitments could not be looked at.
    Models,
    /// The store could not be cleaned up.
    Store,
    Samples,
    Step,
    /// A fixed tokenizer is not the one that its repository or the subnet file now names.
    Tokenizer,
    /// A competition has no finite loss.
    Losses,
    /// Weights could not be set.
    Weights,
    WeightsAge,
    /// Committed weights were not revealed.
    Reveal,
    /// Somebody else sets weights with our hotkey.
    Twin,
    /// Rows for W&B take too much of the disk.
    Wandb,
    /// The validator ended with a failure.
    Failure,
    /// One that only a later release knows.
    #[serde(other)]
    Unknown,
}

impl Cause {
    /// Every cause that this release knows.
    pub const ALL: [Self; 20] = [
        Self::Chain,
        Self::ChainLag,
        Self::Subnet,
        Self::Registration,
        Self::Commitments,
        Self::OldChainData,
        Self::State,
        Self::Tracker,
        Self::Models,
        Self::Store,
        Self::Samples,
        Self::Step,
        Self::Tokenizer,
        Self::Losses,
        Self::Weights,
        Self::WeightsAge,
        Self::Reveal,
        Self::Twin,
        Self::Wandb,
        Self::Failure,
    ];

    /// Returns what ends the problem.
    pub const fn ends(self) -> &'static str {
        match self {
            Self::Chain => "with the next block",
            Self::ChainLag => "when a fresh endpoint is used",
            Self::Subnet => "when the netuid is again the subnet that is meant",
            Self::Registration => "when the hotkey is registered",
            Self::Commitments => "with the first commitment to a model",
            Self::OldChainData => "with a start that reaches the chain",
            Self::State => "with the next state that can be written",
            Self::Tracker => "with the next write",
            Self::Models => "when no commitment waits for something outside",
            Self::Store => "with the next cleaning, within ten minutes",
            Self::Samples => "with the next step whose sources all answer",
            Self::Step => "when the step is made or no longer due",
            Self::Tokenizer => "with the next step on the tokenizer that is wanted",
            Self::Losses => "with the competition's next finite loss",
            Self::Weights => "when newer weights of ours are on the chain",
            Self::WeightsAge => "when our weights on the chain are no longer overdue",
            Self::Reveal => "when newer weights of ours are visible",
            Self::Twin => "after two epochs without foreign weights",
            Self::Wandb => "when the rows are sent or deleted",
            Self::Failure => "with the next start",
            Self::Unknown => "as a later release knows",
        }
    }
}

impl fmt::Display for Cause {
    /// Writes the name that the file has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_find_every_cause_in_the_documentation() {
        let text = include_str!("../../../docs/operating.md");
        for cause in Cause::ALL {
            assert!(text.contains(&format!("| `{cause}` |")), "{cause}");
        }
    }
}

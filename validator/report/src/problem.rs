//! What can be wrong with a validator: each cause with its end.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use shared::notices::Problem;

/// What can be wrong. Each cause has one owner, which holds its [`Alarm`](crate::board::Alarm),
/// and an end, see [`Rule`](crate::rules::Rule); or it is a condition, which begins and ends by itself.
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
    /// Records can't be published.
    Publish,
    /// The validator ended with a failure.
    Failure,
    /// The disk of the models is almost full.
    Disk,
    /// Our validator trust fell.
    Trust,
    /// No step was completed for long.
    Steps,
    /// Start after start fails.
    CrashLoop,
    OldSamples,
    /// The chain gives us no validator permit.
    Permit,
    /// One that only a later release knows.
    #[serde(other)]
    Unknown,
}

impl Cause {
    /// Every cause that this release knows.
    pub const ALL: [Self; 27] = [
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
        Self::Publish,
        Self::Failure,
        Self::Disk,
        Self::Trust,
        Self::Steps,
        Self::CrashLoop,
        Self::OldSamples,
        Self::Permit,
    ];
}

impl fmt::Display for Cause {
    /// Writes the name that the file has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

//! Setting weights so that they surely arrive: converted, checked beforehand, submitted at most
//! once at a time, found again on the chain.

pub(crate) mod calls;
pub mod confirm;
pub mod emit;
pub mod guard;
pub mod preflight;
pub mod submit;
pub(crate) mod transaction;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use confirm::{Reveal, Standing, reveal, standing};
pub use emit::{EmitError, Emitted, emit, emit_within};
pub use guard::{TwinAlarm, TwinError, TwinGuard};
pub use preflight::{Preflight, Refusal, preflight};
pub use submit::set;

use super::error::ChainError;
use subnet::{BlockNumber, Fault, FaultKind, Hotkey, Netuid, Uid};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsRequest {
    pub netuid: Netuid,
    /// The mechanism; 0 on subnets that have but one.
    pub mechanism: u8,
    pub weights: Emitted,
    /// Our version of the rules; the chain may demand a minimum.
    pub version_key: u64,
    /// How long to go on trying.
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// In the clear, effective at once.
    Plain,
    /// Encrypted until a round of drand's beacon.
    TimelockedCommit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsReceipt {
    pub hotkey: Hotkey,
    pub uid: Uid,
    pub netuid: Netuid,
    pub mechanism: u8,
    pub call: String,
    /// In the clear or committed.
    pub method: Method,
    pub weights: Emitted,
    /// The version key sent with them.
    pub version_key: u64,
    /// The transaction's hash, in hexadecimal.
    pub extrinsic_hash: String,
    /// Height of the block that includes it.
    pub block: BlockNumber,
    /// That block's hash, in hexadecimal.
    pub block_hash: String,
    /// Whether that block was final when we stopped watching.
    pub finalized: bool,
    /// What the chain stored, read back; `None` until a commit is revealed.
    pub stored: Option<Vec<(u16, u16)>>,
    /// When a commit will be revealed.
    pub reveal: Option<RevealPlan>,
    pub attempts: u32,
    /// From the first look at the chain to the read-back, in milliseconds.
    pub latency_millis: u64,
}

/// When committed weights become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevealPlan {
    /// The round of drand's beacon that unlocks them.
    pub round: u64,
    /// First block of the epoch that reveals them.
    pub block: BlockNumber,
}

/// Why weights were not set.
#[derive(Debug, thiserror::Error)]
pub enum SetWeightsError {
    /// The chain would refuse them; nothing was sent.
    #[error("the chain would refuse these weights: {}", list(.0))]
    Refused(Vec<Refusal>),
    /// The chain could not be reached or read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The node's pool refused the transaction for good.
    #[error("the chain refused the transaction: {meaning}")]
    Pool { meaning: String },
    /// The transaction is on the chain, but failed.
    #[error("the chain executed {call} in block {block} and refused it: {error}")]
    Dispatch {
        call: String,
        /// Block that includes it.
        block: BlockNumber,
        /// Name of the chain's error.
        error: String,
    },
    /// The chain says success, and stores something else.
    #[error("block {block} includes the weights, but the chain stores others: {problem}")]
    NotStored {
        /// Block that includes the transaction.
        block: BlockNumber,
        problem: String,
    },
    /// The weights could not be encrypted.
    #[error("could not encrypt the weights: {0}")]
    Encrypt(String),
    #[error("the weights were not confirmed within {} s; last: {last}", window.as_secs())]
    Window { window: Duration, last: String },
}

fn list(refusals: &[Refusal]) -> String {
    refusals
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<SetWeightsError> for Fault {
    fn from(error: SetWeightsError) -> Self {
        let kind = match &error {
            SetWeightsError::Chain(error) => error.kind(),
            SetWeightsError::Refused(refusals) if refusals.iter().any(Refusal::is_lasting) => {
                FaultKind::Config
            }
            _ => FaultKind::Outside,
        };
        Self::new(kind, error)
    }
}

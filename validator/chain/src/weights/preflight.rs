//! What the chain would say to our weights, asked before anything is sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subxt::dynamic::Value as Argument;

use super::WeightsRequest;
use crate::{
    block::{Block, StorageItem},
    decode::{DecodeError, Value},
    error::ChainError,
    hyperparameters::{Hyperparameters, PALLET, argument},
    metagraph::{self, Neuron},
};
use subnet::{BlockNumber, Hotkey, Netuid, Uid};

/// Subnets that fit beside each other in one mechanism's range of storage indexes.
const SUBNETS_PER_MECHANISM: u16 = 4096;

/// Commits of one hotkey in one epoch that the chain takes.
const MAX_UNREVEALED: usize = 10;

/// The call that subnets of null consensus ask for, with weights of 32 bits.
const NULL_CONSENSUS_CALL: &str = "set_weights_v2";

/// Newest format of commits that we write.
const COMMIT_VERSION: u16 = 4;

/// A reason for which the chain would refuse the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Refusal {
    /// The root network has no weights of ours.
    #[error("subnet 0 is the root network")]
    RootNetwork,
    /// The hotkey has no uid.
    #[error("hotkey {hotkey} is not registered on subnet {netuid}")]
    NotRegistered { hotkey: Hotkey, netuid: Netuid },
    #[error("uid {uid} has no validator permit: its stake is not among the subnet's largest")]
    NoPermit { uid: Uid },
    #[error("the stake is {stake} rao, the chain asks for {threshold}")]
    StakeTooLow { stake: u64, threshold: u64 },
    /// Too soon after the last weight set or the registration.
    #[error(
        "the last weight set (or registration) was in block {last}; wait {blocks} more block(s)"
    )]
    TooSoon {
        /// Block of the last one.
        last: BlockNumber,
        /// Blocks to wait.
        blocks: u64,
    },
    /// The chain demands a newer version.
    #[error("the chain asks for version key {required}, ours is {ours}; update the validator")]
    VersionKey { ours: u64, required: u64 },
    #[error("there are {count} weights above zero, the chain asks for {minimum}")]
    TooFew { count: usize, minimum: usize },
    /// A weight on a neuron that does not exist.
    #[error("uid {uid} does not exist: the subnet has {count} neurons")]
    NoSuchUid { uid: Uid, count: usize },
    #[error("uid {uid} is named twice")]
    DuplicateUid { uid: Uid },
    #[error("the largest weight is {share}/65535 of all, the chain allows {limit}/65535")]
    MaxWeight {
        /// Its share.
        share: u16,
        limit: u16,
    },
    #[error("the subnet has {count} mechanism(s), there is no number {mechanism}")]
    NoSuchMechanism { mechanism: u8, count: u8 },
    /// The chain refuses nearly everything for a while.
    #[error("the chain is in safe mode until block {until}")]
    SafeMode {
        /// The block.
        until: BlockNumber,
    },
    /// Commits of a format we can't write.
    #[error(
        "the chain asks for commits of version {version}, we write version {COMMIT_VERSION}; update the validator"
    )]
    CommitVersion { version: u16 },
    /// The chain takes no more commits in this epoch.
    #[error(
        "{count} commits of this epoch wait for their reveal, the chain takes {MAX_UNREVEALED}; wait {blocks} more block(s)"
    )]
    TooManyCommits {
        count: usize,
        /// Blocks until the next epoch.
        blocks: u64,
    },
    /// Other calls, with other numbers, set weights there.
    #[error(
        "the subnet runs null consensus: the weights of the validator with the most stake alone count, and this version does not know the call that sets them; update the validator"
    )]
    NullConsensus,
    /// Commit-reveal is on, and no epoch ever reveals.
    #[error("the subnet's tempo is 0: committed weights would never be revealed")]
    NoReveal,
}

impl Refusal {
    /// Returns the blocks to wait, if waiting for so long is known to help.
    pub const fn wait(&self) -> Option<u64> {
        match self {
            Self::TooSoon { blocks, .. } | Self::TooManyCommits { blocks, .. } => Some(*blocks),
            _ => None,
        }
    }

    /// Returns whether waiting alone does not help.
    pub const fn is_lasting(&self) -> bool {
        !matches!(
            self,
            Self::TooSoon { .. } | Self::TooManyCommits { .. } | Self::SafeMode { .. }
        )
    }
}

/// What the chain thinks of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// Height of the block looked at.
    pub block: BlockNumber,
    /// The neuron that would set them.
    pub neuron: Option<Neuron>,
    pub hyperparameters: Hyperparameters,
    /// Why the chain would refuse; empty if it would not.
    pub refusals: Vec<Refusal>,
}

impl Preflight {
    /// Returns the blocks to wait, if time is all that is missing.
    pub fn wait(&self) -> Option<u64> {
        match self.refusals.as_slice() {
            [refusal] => refusal.wait(),
            _ => None,
        }
    }
}

/// Returns the index under which the chain keeps a mechanism's weights.
pub(crate) fn storage_index(netuid: Netuid, mechanism: u8) -> u16 {
    u16::from(mechanism)
        .saturating_mul(SUBNETS_PER_MECHANISM)
        .saturating_add(netuid.0)
}

/// Asks the state at a block what it would say to a request of this hotkey.
pub async fn preflight(
    block: &Block,
    hotkey: &Hotkey,
    request: &WeightsRequest,
) -> Result<Preflight, ChainError> {
    block.runtime().check_extensions()?;
    let hyperparameters = Hyperparameters::read(block, request.netuid).await?;
    let neurons = metagraph::neurons(block, request.netuid).await?;
    let mut neuron = neurons
        .iter()
        .find(|neuron| neuron.hotkey == *hotkey)
        .cloned();
    if let Some(neuron) = &mut neuron
        && request.mechanism != 0
    {
        let index = storage_index(request.netuid, request.mechanism);
        neuron.last_update = last_update(block, index, neuron.uid).await?;
    }
    let count = neurons.last().map_or(0, |last| usize::from(last.uid.0) + 1);
    let mut refusals = refusals(
        block.number(),
        hotkey,
        neuron.as_ref(),
        count,
        &hyperparameters,
        request,
    );
    if hyperparameters.null_consensus && block.runtime().has_call(PALLET, NULL_CONSENSUS_CALL) {
        refusals.push(Refusal::NullConsensus);
    }
    refusals.extend(too_many_commits(block, hotkey, request, &hyperparameters).await?);
    Ok(Preflight {
        block: block.number(),
        neuron,
        hyperparameters,
        refusals,
    })
}

/// Counts the commits that wait for their reveal, where an epoch is so long that they may be too
/// many.
async fn too_many_commits(
    block: &Block,
    hotkey: &Hotkey,
    request: &WeightsRequest,
    rules: &Hyperparameters,
) -> Result<Option<Refusal>, ChainError> {
    const ITEM: &str = "TimelockedWeightCommits";
    if !may_be_too_many(rules) || !block.runtime().has_storage(PALLET, ITEM) {
        return Ok(None);
    }
    let (netuid, head) = (request.netuid, block.number());
    let keys = vec![
        Argument::u128(storage_index(netuid, request.mechanism).into()),
        Argument::u128(rules.epoch.index_after(netuid, head).into()),
    ];
    let Some(commits) = block.read_one(PALLET, ITEM, keys).await? else {
        return Ok(None);
    };
    let count = || {
        let mut count = 0;
        for commit in commits.list()? {
            let who = commit.list()?.first().map(Value::account).transpose()?;
            count += usize::from(who == Some(hotkey.0));
        }
        Ok::<_, DecodeError>(count)
    };
    let count = count().map_err(|error| block.runtime().decode_error(ITEM, error))?;
    let next = rules.epoch.next_start(netuid, head);
    Ok((count >= MAX_UNREVEALED).then(|| Refusal::TooManyCommits {
        count,
        blocks: next.map_or(1, |next| next.saturating_sub(head)),
    }))
}

/// Returns whether an epoch has room for more commits of one hotkey than the chain takes.
fn may_be_too_many(rules: &Hyperparameters) -> bool {
    let between = rules.weights_rate_limit.max(1);
    rules.commit_reveal && u64::from(rules.tempo) / between >= MAX_UNREVEALED as u64
}

/// Reads when a neuron last set weights of the mechanism with this storage index.
pub(crate) async fn last_update(
    block: &Block,
    index: u16,
    uid: Uid,
) -> Result<BlockNumber, ChainError> {
    let index = Argument::u128(index.into());
    let column = block.read_one(PALLET, "LastUpdate", vec![index]).await?;
    let Some(column) = column else { return Ok(0) };
    let read = || match column.list()?.get(usize::from(uid.0)) {
        Some(value) => value.uint(),
        None => Ok(0),
    };
    read().map_err(|error| {
        block
            .runtime()
            .decode_error("SubtensorModule.LastUpdate", error)
    })
}

/// Applies the chain's rules, in its order; `count` is the number of uids.
pub fn refusals(
    block: BlockNumber,
    hotkey: &Hotkey,
    neuron: Option<&Neuron>,
    count: usize,
    rules: &Hyperparameters,
    request: &WeightsRequest,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let weights = &request.weights;
    if let Some(until) = rules.safe_mode_until
        && until > block
    {
        refusals.push(Refusal::SafeMode { until });
    }
    if request.netuid.0 == 0 {
        refusals.push(Refusal::RootNetwork);
    }
    if request.mechanism >= rules.mechanisms {
        let (mechanism, count) = (request.mechanism, rules.mechanisms);
        refusals.push(Refusal::NoSuchMechanism { mechanism, count });
    }
    if rules.commit_reveal {
        if let Some(version) = rules.commit_reveal_version
            && version != COMMIT_VERSION
        {
            refusals.push(Refusal::CommitVersion { version });
        }
        if rules.epoch.tempo == 0 {
            refusals.push(Refusal::NoReveal);
        }
    }
    let Some(neuron) = neuron else {
        refusals.push(Refusal::NotRegistered {
            hotkey: *hotkey,
            netuid: request.netuid,
        });
        return refusals;
    };
    let is_owner = rules.owner_hotkey == Some(*hotkey);
    let only_self = weights.is_self_weight(neuron.uid);
    if neuron.stake < rules.stake_threshold && !is_owner {
        let (stake, threshold) = (neuron.stake, rules.stake_threshold);
        refusals.push(Refusal::StakeTooLow { stake, threshold });
    }
    if rules.weights_version > request.version_key {
        let (ours, required) = (request.version_key, rules.weights_version);
        refusals.push(Refusal::VersionKey { ours, required });
    }
    // The block that would include them comes after this one.
    let since = block.saturating_add(1).saturating_sub(neuron.last_update);
    if neuron.last_update > 0 && since < rules.weights_rate_limit {
        let blocks = rules.weights_rate_limit.saturating_sub(since);
        refusals.push(Refusal::TooSoon {
            last: neuron.last_update,
            blocks,
        });
    }
    if !neuron.validator_permit && !only_self && !is_owner {
        refusals.push(Refusal::NoPermit { uid: neuron.uid });
    }
    let mut seen = std::collections::BTreeSet::new();
    for uid in &weights.uids {
        if !seen.insert(*uid) {
            refusals.push(Refusal::DuplicateUid { uid: Uid(*uid) });
        }
        if usize::from(*uid) >= count {
            refusals.push(Refusal::NoSuchUid {
                uid: Uid(*uid),
                count,
            });
        }
    }
    if only_self {
        return refusals;
    }
    let minimum = count.min(usize::from(rules.min_allowed_weights));
    if weights.len() < minimum || weights.is_empty() {
        refusals.push(Refusal::TooFew {
            count: weights.len(),
            minimum: minimum.max(1),
        });
    }
    let (share, limit) = (weights.largest_share(), rules.max_weight_limit);
    if share > limit {
        refusals.push(Refusal::MaxWeight { share, limit });
    }
    refusals
}

/// Reads the weights a neuron has on the chain.
pub(crate) async fn stored_weights(
    block: &Block,
    netuid: Netuid,
    mechanism: u8,
    uid: Uid,
) -> Result<Vec<(u16, u16)>, ChainError> {
    let row = block
        .read_one(PALLET, "Weights", row_key(netuid, mechanism, uid))
        .await?;
    let Some(row) = row else {
        return Ok(Vec::new());
    };
    pairs(&row).map_err(|error| {
        block
            .runtime()
            .decode_error("SubtensorModule.Weights", error)
    })
}

fn row_key(netuid: Netuid, mechanism: u8, uid: Uid) -> Vec<Argument> {
    let index = Argument::u128(storage_index(netuid, mechanism).into());
    vec![index, Argument::u128(uid.0.into())]
}

fn pairs(row: &Value) -> Result<Vec<(u16, u16)>, DecodeError> {
    let pair = |pair: &Value| {
        let [uid, weight] = pair.tuple()?;
        Ok((uid.uint()?, weight.uint()?))
    };
    row.list()?.iter().map(pair).collect()
}

/// Reads the weights of all neurons; those without any are left out.
pub(crate) async fn all_weights(
    block: &Block,
    netuid: Netuid,
    mechanism: u8,
) -> Result<BTreeMap<Uid, Vec<(u16, u16)>>, ChainError> {
    let count = block
        .read_one(PALLET, "SubnetworkN", vec![argument(netuid)])
        .await?;
    let undecodable = |error| {
        block
            .runtime()
            .decode_error("SubtensorModule.Weights", error)
    };
    let count: u16 = count
        .map_or(Ok(0), |count| count.uint())
        .map_err(undecodable)?;
    let items: Vec<StorageItem<'_>> = (0..count)
        .map(|uid| (PALLET, "Weights", row_key(netuid, mechanism, Uid(uid))))
        .collect();
    let rows = (0..count).map(Uid).zip(block.read(&items).await?);
    rows.filter_map(|(uid, row)| Some((uid, row?)))
        .map(|(uid, row)| Ok((uid, pairs(&row).map_err(undecodable)?)))
        .filter(|row| !matches!(row, Ok((_, pairs)) if pairs.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests;

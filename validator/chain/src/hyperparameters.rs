//! A subnet's hyperparameters, straight from storage with the defaults its metadata gives.

use serde::{Deserialize, Serialize};
use subxt::dynamic::Value as Argument;

use super::{
    block::{Block, StorageItem},
    decode::{DecodeError, Value},
    epoch::{EpochCounters, EpochState},
    error::ChainError,
};
use subnet::{BlockNumber, Hotkey, Netuid};

pub(super) const PALLET: &str = "SubtensorModule";

/// What the chain asks of weights, and when its epochs are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// Blocks between epochs.
    pub tempo: u16,
    /// Blocks that must pass between two weight sets of a hotkey.
    pub weights_rate_limit: u64,
    /// Lowest version key accepted; 0 accepts all.
    pub weights_version: u64,
    pub min_allowed_weights: u16,
    /// Largest share of one weight, of 65535.
    pub max_weight_limit: u16,
    /// Whether weights must be committed first and are revealed later.
    pub commit_reveal: bool,
    /// Epochs between commit and reveal.
    pub reveal_period_epochs: u64,
    /// Version of the commit's format; absent from older runtimes.
    pub commit_reveal_version: Option<u16>,
    /// Least stake, in rao, that may set weights.
    pub stake_threshold: u64,
    /// Blocks after which a validator that sets no weights counts as inactive.
    pub activity_cutoff: u64,
    /// Blocks for which a new neuron can't be replaced.
    pub immunity_period: u16,
    pub max_uids: u16,
    /// Number of mechanisms; 1 in older runtimes.
    pub mechanisms: u8,
    /// Hotkey of the subnet's owner, who is exempt from some checks.
    pub owner_hotkey: Option<Hotkey>,
    /// Coldkey of the subnet's owner.
    #[serde(default)]
    pub owner: Option<Hotkey>,
    /// Block at which the netuid was last given to a subnet.
    #[serde(default)]
    pub registered_at: Option<BlockNumber>,
    /// Whether the weights of the validator with the most stake alone count.
    #[serde(default)]
    pub null_consensus: bool,
    /// The chain's clock at the block, in seconds since 1970.
    #[serde(default)]
    pub time: Option<u64>,
    /// Until which block the chain is in safe mode and refuses ordinary transactions.
    pub safe_mode_until: Option<BlockNumber>,
    /// Length of a block, in milliseconds.
    pub block_millis: u64,
    /// When the epochs begin.
    pub epoch: EpochState,
}

/// Storage items that each subnet has.
const OF_SUBNET: [&str; 21] = [
    "NetworksAdded",
    "Tempo",
    "WeightsSetRateLimit",
    "WeightsVersionKey",
    "MinAllowedWeights",
    "MaxWeightsLimit",
    "CommitRevealWeightsEnabled",
    "RevealPeriodEpochs",
    "ActivityCutoff",
    "ActivityCutoffFactorMilli",
    "SubnetEpochConsensus",
    "NetworkRegisteredAt",
    "SubnetOwner",
    "ImmunityPeriod",
    "MaxAllowedUids",
    "MechanismCountCurrent",
    "SubnetOwnerHotkey",
    "LastEpochBlock",
    "PendingEpochAt",
    "SubnetEpochIndex",
    "BlocksSinceLastStep",
];

impl Hyperparameters {
    /// Reads them in one request.
    pub(super) async fn read(block: &Block, netuid: Netuid) -> Result<Self, ChainError> {
        let of_subnet = |item| -> StorageItem<'static> { (PALLET, item, vec![argument(netuid)]) };
        let mut items: Vec<StorageItem<'_>> = OF_SUBNET.map(of_subnet).into();
        items.push((PALLET, "CommitRevealWeightsVersion", vec![]));
        items.push((PALLET, "StakeThreshold", vec![]));
        items.push(("SafeMode", "EnteredUntil", vec![]));
        items.push(("Timestamp", "Now", vec![]));
        let values = block.read(&items).await?;
        let read = Read {
            block,
            items: &items,
            values: &values,
        };
        if !read.required("NetworksAdded", Value::bool)? {
            return Err(ChainError::NoSubnet(netuid));
        }
        let tempo = read.required("Tempo", Value::uint)?;
        let counters = match read.optional("LastEpochBlock", Value::uint)? {
            None => None,
            Some(last_epoch_block) => Some(EpochCounters {
                last_epoch_block,
                pending_epoch_at: read.optional("PendingEpochAt", Value::uint)?.unwrap_or(0),
                epoch_index: read.optional("SubnetEpochIndex", Value::uint)?.unwrap_or(0),
                blocks_since_last_step: read
                    .optional("BlocksSinceLastStep", Value::uint)?
                    .unwrap_or(0),
            }),
        };
        Ok(Self {
            tempo,
            weights_rate_limit: read.required("WeightsSetRateLimit", Value::uint)?,
            weights_version: read.required("WeightsVersionKey", Value::uint)?,
            min_allowed_weights: read.required("MinAllowedWeights", Value::uint)?,
            max_weight_limit: read
                .optional("MaxWeightsLimit", Value::uint)?
                .unwrap_or(u16::MAX),
            commit_reveal: read
                .optional("CommitRevealWeightsEnabled", Value::bool)?
                .unwrap_or(false),
            reveal_period_epochs: read
                .optional("RevealPeriodEpochs", Value::uint)?
                .unwrap_or(1),
            commit_reveal_version: read.optional("CommitRevealWeightsVersion", Value::uint)?,
            stake_threshold: read.optional("StakeThreshold", Value::uint)?.unwrap_or(0),
            activity_cutoff: activity_cutoff(
                tempo,
                read.optional("ActivityCutoffFactorMilli", Value::uint)?,
                read.optional("ActivityCutoff", Value::uint)?,
            ),
            immunity_period: read.optional("ImmunityPeriod", Value::uint)?.unwrap_or(0),
            max_uids: read.optional("MaxAllowedUids", Value::uint)?.unwrap_or(256),
            mechanisms: read
                .optional("MechanismCountCurrent", Value::uint)?
                .unwrap_or(1),
            owner_hotkey: read
                .optional("SubnetOwnerHotkey", Value::account)?
                .filter(|account| *account != [0; 32])
                .map(Hotkey),
            owner: read
                .optional("SubnetOwner", Value::account)?
                .filter(|account| *account != [0; 32])
                .map(Hotkey),
            registered_at: read.optional("NetworkRegisteredAt", Value::uint)?,
            null_consensus: read
                .optional("SubnetEpochConsensus", |value| {
                    Ok(value.variant()?.0 == "Null")
                })?
                .unwrap_or(false),
            time: read
                .optional("Now", Value::uint::<u64>)?
                .map(|millis| millis / 1000),
            safe_mode_until: read.optional("EnteredUntil", Value::uint)?,
            block_millis: block.runtime().block_millis(),
            epoch: EpochState { tempo, counters },
        })
    }
}

/// Returns after how many blocks without weights a validator is inactive. Since spec 424 that is a
/// number of thousandths of the tempo (at least one block); before, and where none is given, a
/// number of blocks.
fn activity_cutoff(tempo: u16, factor: Option<u64>, blocks: Option<u64>) -> u64 {
    match factor.filter(|factor| *factor > 0) {
        Some(factor) => (factor.saturating_mul(tempo.into()) / 1000).max(1),
        None => blocks.unwrap_or(u16::MAX.into()),
    }
}

/// Returns a netuid as an argument of calls and keys; subxt fits it to whatever newtype is asked.
pub(super) fn argument(netuid: Netuid) -> Argument {
    Argument::u128(netuid.0.into())
}

struct Read<'a> {
    block: &'a Block,
    items: &'a [StorageItem<'a>],
    values: &'a [Option<Value>],
}

impl Read<'_> {
    fn optional<T>(
        &self,
        item: &str,
        read: impl FnOnce(&Value) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, ChainError> {
        let index = self.items.iter().position(|(_, name, _)| *name == item);
        let value = index
            .and_then(|index| self.values.get(index))
            .and_then(Option::as_ref);
        value
            .filter(|value| !value.is_unit())
            .map(read)
            .transpose()
            .map_err(|error| self.block.runtime().decode_error(item, error))
    }

    fn required<T>(
        &self,
        item: &str,
        read: impl FnOnce(&Value) -> Result<T, DecodeError>,
    ) -> Result<T, ChainError> {
        self.optional(item, read)?.ok_or_else(|| {
            self.block
                .runtime()
                .missing(format!("storage item {PALLET}.{item}"))
        })
    }
}

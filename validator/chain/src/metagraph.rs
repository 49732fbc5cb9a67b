//! One consistent picture of the subnet: neurons, hyperparameters and commitments at one block.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shared::file::{self, FileError};
use subxt::dynamic::Value as Argument;

use super::{
    block::{Block, StorageItem},
    commitments::{self, RawCommitment},
    decode::{DecodeError, Value},
    error::ChainError,
    hyperparameters::{Hyperparameters, PALLET, argument},
    runtime::Runtime,
    stake,
};
use subnet::{BlockNumber, CommitmentRules, Genesis, Hotkey, Netuid, Uid};

const MAX_FILE: u64 = 64 << 20;

const API: &str = "SubnetInfoRuntimeApi";

/// Indexes of the columns asked of `get_selective_metagraph`.
const COLUMNS: [u16; 12] = [
    5,  // owner hotkey: cheap, and makes the answer recognisable
    52, // hotkeys
    53, // coldkeys
    56, // active
    57, // validator permit
    59, // last update
    60, // emission
    61, // dividends
    62, // incentives
    63, // consensus
    66, // block at registration
    69, // total stake
];

/// A neuron of the subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuron {
    pub uid: Uid,
    pub hotkey: Hotkey,
    /// The key that owns the hotkey; all zeros where the runtime does not say.
    pub coldkey: Hotkey,
    /// Stake that counts for the epoch and the stake threshold, in rao.
    pub stake: u64,
    /// Whether it may set weights on others.
    pub validator_permit: bool,
    /// Whether it set weights lately.
    pub active: bool,
    /// Share of consensus, of 65535.
    pub consensus: u16,
    /// Share of incentive, of 65535.
    pub incentive: u16,
    /// Share of dividends, of 65535.
    pub dividends: u16,
    /// Emission of the last epoch, in rao.
    pub emission: u64,
    /// Block of its last weight set or commit; registration counts as one.
    pub last_update: BlockNumber,
    /// Block at which it was registered.
    pub registered_at: BlockNumber,
}

/// The subnet at one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSnapshot {
    pub netuid: Netuid,
    /// The block's height.
    pub block: BlockNumber,
    /// The block's hash, in hexadecimal.
    pub block_hash: String,
    /// The genesis block's hash: which chain this is.
    pub genesis_hash: Genesis,
    pub spec_version: u32,
    /// When it was taken, in seconds since 1970.
    pub taken_at: u64,
    /// The neurons, by ascending uid.
    pub neurons: Vec<Neuron>,
    pub hyperparameters: Hyperparameters,
    /// The commitments of current neurons, by ascending uid.
    pub commitments: Vec<RawCommitment>,
    /// First block of the next epoch; `None` if there is none in sight.
    pub next_epoch: Option<BlockNumber>,
}

impl ChainSnapshot {
    /// Returns the neuron of this hotkey.
    pub fn neuron(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|neuron| neuron.hotkey == *hotkey)
    }

    /// Returns the neuron of this uid.
    pub fn by_uid(&self, uid: Uid) -> Option<&Neuron> {
        let index = self
            .neurons
            .binary_search_by_key(&uid, |neuron| neuron.uid)
            .ok()?;
        self.neurons.get(index)
    }

    /// Returns how long ago it was taken.
    pub fn age(&self) -> Duration {
        Duration::from_secs(shared::clock::unix_seconds().saturating_sub(self.taken_at))
    }

    /// Writes it to a file, for work without the chain.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(self).expect("a snapshot has no map with odd keys");
        file::write_atomic(path, &bytes)
    }

    /// Reads a saved one; `None` if there is none, or none that this version understands.
    pub fn load(path: &Path) -> Result<Option<Self>, FileError> {
        let Some(bytes) = file::read_limited(path, MAX_FILE)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "ignoring a saved snapshot");
                Ok(None)
            }
        }
    }

    /// Reads it at a block.
    pub(super) async fn read(
        block: &Block,
        netuid: Netuid,
        rules: &CommitmentRules,
    ) -> Result<Self, ChainError> {
        let hyperparameters = Hyperparameters::read(block, netuid).await?;
        let neurons = neurons(block, netuid).await?;
        let keys = neurons.iter().map(|neuron| (neuron.uid, neuron.hotkey));
        let commitments = commitments::read(block, netuid, keys, rules).await?;
        let next_epoch = next_epoch(block, netuid, &hyperparameters).await?;
        Ok(Self {
            netuid,
            block: block.number(),
            block_hash: format!("0x{}", hex::encode(block.hash())),
            genesis_hash: block.runtime().genesis(),
            spec_version: block.runtime().spec_version(),
            taken_at: shared::clock::unix_seconds(),
            neurons,
            hyperparameters,
            commitments,
            next_epoch,
        })
    }
}

async fn next_epoch(
    block: &Block,
    netuid: Netuid,
    hyperparameters: &Hyperparameters,
) -> Result<Option<BlockNumber>, ChainError> {
    const METHOD: &str = "get_next_epoch_start_block";
    if !block.runtime().has_api(API, METHOD) {
        return Ok(hyperparameters.epoch.next_start(netuid, block.number()));
    }
    let start = block.call(API, METHOD, vec![argument(netuid)]).await?;
    let start = if start.is_unit() {
        None
    } else {
        Some(start.uint())
    };
    start
        .transpose()
        .map_err(|error| block.runtime().decode_error(METHOD, error))
}

/// A way to read the neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeuronSource {
    /// `get_selective_metagraph`: the columns we need, in one request.
    Selective,
    /// `get_metagraph`: every column, hundreds of kilobytes.
    Full,
    /// Storage, column by column, as every runtime since 2023 has it.
    Storage,
}

impl NeuronSource {
    /// Every way, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Selective, Self::Full, Self::Storage];

    /// Returns whether a runtime has this way.
    pub(crate) fn is_in(self, runtime: &Runtime) -> bool {
        self.method()
            .is_none_or(|method| runtime.has_api(API, method))
    }

    fn method(self) -> Option<&'static str> {
        match self {
            Self::Selective => Some("get_selective_metagraph"),
            Self::Full => Some("get_metagraph"),
            Self::Storage => None,
        }
    }
}

/// Reads the neurons by the cheapest way this runtime has.
pub(super) async fn neurons(block: &Block, netuid: Netuid) -> Result<Vec<Neuron>, ChainError> {
    for source in NeuronSource::ALL {
        if let Some(method) = source.method() {
            if !source.is_in(block.runtime()) {
                continue;
            }
            match neurons_from(block, netuid, source).await {
                // The next way may do; a node that is away or has forgotten the block won't help.
                Err(
                    error @ (ChainError::Refused { .. }
                    | ChainError::Decode { .. }
                    | ChainError::Encode { .. }),
                ) => {
                    let error = shared::causes::one_line(&error);
                    tracing::warn!(method, error, "reading the neurons another way");
                }
                result => return result,
            }
        }
    }
    neurons_from(block, netuid, NeuronSource::Storage).await
}

/// Reads the neurons in one way.
pub async fn neurons_from(
    block: &Block,
    netuid: Netuid,
    source: NeuronSource,
) -> Result<Vec<Neuron>, ChainError> {
    let Some(method) = source.method() else {
        return checked(from_storage(block, netuid).await?);
    };
    let mut arguments = vec![argument(netuid)];
    if source == NeuronSource::Selective {
        let columns = COLUMNS.map(|column| Argument::u128(column.into()));
        arguments.push(Argument::unnamed_composite(columns));
    }
    let metagraph = block.call(API, method, arguments).await?;
    if metagraph.is_unit() {
        return Err(ChainError::NoSubnet(netuid));
    }
    checked(from_columns(&metagraph).map_err(|error| block.runtime().decode_error(method, error))?)
}

/// Turns the struct of columns that the metagraph APIs give into neurons.
pub fn from_columns(metagraph: &Value) -> Result<Vec<Neuron>, DecodeError> {
    let column = |name: &str| metagraph.field(name)?.list();
    let hotkeys = column("hotkeys")?;
    let full = |name: &str| match column(name)? {
        column if column.len() == hotkeys.len() => Ok(column),
        column => Err(DecodeError::Shape {
            expected: "columns of one length",
            found: format!("{} hotkeys, but {} {name}", hotkeys.len(), column.len()),
        }),
    };
    let (coldkeys, active, permits) = (
        full("coldkeys")?,
        full("active")?,
        full("validator_permit")?,
    );
    let (last_update, registered) = (full("last_update")?, full("block_at_registration")?);
    let (emission, stake, dividends) =
        (full("emission")?, full("total_stake")?, full("dividends")?);
    let (incentives, consensus) = (full("incentives")?, full("consensus")?);
    (0..hotkeys.len())
        .map(|i| {
            Ok(Neuron {
                uid: uid(i)?,
                hotkey: Hotkey(hotkeys[i].account()?),
                coldkey: Hotkey(coldkeys[i].account()?),
                stake: stake[i].uint()?,
                validator_permit: permits[i].bool()?,
                active: active[i].bool()?,
                consensus: consensus[i].uint()?,
                incentive: incentives[i].uint()?,
                dividends: dividends[i].uint()?,
                emission: emission[i].uint()?,
                last_update: last_update[i].uint()?,
                registered_at: registered[i].uint()?,
            })
        })
        .collect()
}

fn uid(index: usize) -> Result<Uid, DecodeError> {
    u16::try_from(index)
        .map(Uid)
        .map_err(|_| DecodeError::TooMany)
}

/// Reads neurons column by column, as every runtime since 2023 allows.
async fn from_storage(block: &Block, netuid: Netuid) -> Result<Vec<Neuron>, ChainError> {
    let decode = |item: &'static str| move |error| block.runtime().decode_error(item, error);
    let column_names = [
        "ValidatorPermit",
        "Active",
        "Consensus",
        "Incentive",
        "Dividends",
        "Emission",
        "LastUpdate",
    ];
    let of_subnet = |item| -> StorageItem<'static> { (PALLET, item, vec![argument(netuid)]) };
    let mut items = vec![of_subnet("SubnetworkN")];
    items.extend(column_names.map(of_subnet));
    let mut columns = block
        .read(&items)
        .await?
        .into_iter()
        .map(|column| column.unwrap_or(Value::Unit));
    let count: u16 = columns
        .next()
        .unwrap_or(Value::Unit)
        .uint()
        .map_err(decode("SubnetworkN"))?;
    let columns: Vec<Value> = columns.collect();
    let cell = |column: usize, uid: u16| match columns.get(column) {
        Some(Value::List(list)) => list.get(usize::from(uid)).cloned(),
        _ => None,
    };
    let per_uid = |item| {
        move |uid: u16| -> StorageItem<'static> {
            (
                PALLET,
                item,
                vec![argument(netuid), Argument::u128(uid.into())],
            )
        }
    };
    let mut items: Vec<StorageItem<'_>> = (0..count).map(per_uid("Keys")).collect();
    items.extend((0..count).map(per_uid("BlockAtRegistration")));
    let mut values = block.read(&items).await?;
    let registered = values.split_off(usize::from(count));
    let hotkeys = values
        .iter()
        .map(|key| key.as_ref().map_or(Ok([0; 32]), Value::account).map(Hotkey))
        .collect::<Result<Vec<_>, _>>()
        .map_err(decode("Keys"))?;
    let items: Vec<StorageItem<'_>> = (hotkeys.iter())
        .map(|hotkey| (PALLET, "Owner", vec![Argument::from_bytes(hotkey.0)]))
        .collect();
    let owners = block.read(&items).await?;
    let stakes = stake::read(block, netuid, &hotkeys).await?;
    let mut neurons = Vec::with_capacity(hotkeys.len());
    for (uid, hotkey) in (0..count).zip(hotkeys) {
        // A uid without a neuron reads as the account of all zeros.
        if hotkey.0 == [0; 32] {
            continue;
        }
        let index = usize::from(uid);
        let number = |value: Option<Value>| value.map_or(Ok(0), |value| value.uint::<u64>());
        let small = |column| cell(column, uid).map_or(Ok(0), |value| value.uint::<u16>());
        let flag = |column| cell(column, uid).map_or(Ok(false), |value| value.bool());
        let owner = owners.get(index).cloned().flatten();
        let neuron = || -> Result<Neuron, DecodeError> {
            Ok(Neuron {
                uid: Uid(uid),
                hotkey,
                coldkey: Hotkey(owner.map_or(Ok([0; 32]), |owner| owner.account())?),
                stake: stakes.get(index).copied().unwrap_or(0),
                validator_permit: flag(0)?,
                active: flag(1)?,
                consensus: small(2)?,
                incentive: small(3)?,
                dividends: small(4)?,
                emission: number(cell(5, uid))?,
                last_update: number(cell(6, uid))?,
                registered_at: number(registered.get(index).cloned().flatten())?,
            })
        };
        neurons.push(neuron().map_err(decode("the neurons"))?);
    }
    Ok(neurons)
}

/// Refuses a metagraph in which one hotkey has two uids.
fn checked(neurons: Vec<Neuron>) -> Result<Vec<Neuron>, ChainError> {
    let mut seen = BTreeSet::new();
    match neurons.iter().find(|neuron| !seen.insert(neuron.hotkey)) {
        None => Ok(neurons),
        Some(twice) => Err(ChainError::Inconsistent {
            item: "metagraph",
            problem: format!("hotkey {} has more than one uid", twice.hotkey),
        }),
    }
}

//! What miners committed to: raw records of the Commitments pallet, and the models they name.

use serde::{Deserialize, Serialize};
use subxt::dynamic::Value as Argument;

use super::{
    block::{Block, StorageItem},
    decode::{DecodeError, Value},
    error::ChainError,
    hyperparameters::argument,
};
use subnet::{BlockNumber, Commitment, Hotkey, ModelId, Netuid, Uid};

/// What one neuron wrote into the Commitments pallet: a commitment to a model, or something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawCommitment {
    pub hotkey: Hotkey,
    /// Its uid at the snapshot.
    pub uid: Uid,
    /// Block of the last change.
    pub block: BlockNumber,
    /// The first field as text; what is not UTF-8 is shown with replacement characters.
    pub payload: String,
    /// The model it names, or why it names none.
    pub model: Result<ModelId, String>,
}

impl RawCommitment {
    /// Returns the commitment to a model, if it is one.
    pub fn commitment(&self) -> Option<Commitment> {
        Some(Commitment {
            hotkey: self.hotkey,
            uid: self.uid,
            block: self.block,
            model_id: self.model.clone().ok()?,
        })
    }
}

/// Reads the commitments of these neurons in one request per 512.
pub(super) async fn read(
    block: &Block,
    netuid: Netuid,
    neurons: impl Iterator<Item = (Uid, Hotkey)>,
) -> Result<Vec<RawCommitment>, ChainError> {
    const ITEM: (&str, &str) = ("Commitments", "CommitmentOf");
    if !block.runtime().has_storage(ITEM.0, ITEM.1) {
        return Err(block
            .runtime()
            .missing(format!("storage item {}.{}", ITEM.0, ITEM.1)));
    }
    let neurons: Vec<_> = neurons.collect();
    let items: Vec<StorageItem<'_>> = neurons
        .iter()
        .map(|(_, hotkey)| {
            (
                ITEM.0,
                ITEM.1,
                vec![argument(netuid), Argument::from_bytes(hotkey.0)],
            )
        })
        .collect();
    let records = block.read(&items).await?;
    let mut commitments = Vec::new();
    for ((uid, hotkey), record) in neurons.into_iter().zip(records) {
        let Some(record) = record.filter(|record| !record.is_unit()) else {
            continue;
        };
        let commitment = parse(uid, hotkey, &record).map_err(|error| {
            block
                .runtime()
                .decode_error("Commitments.CommitmentOf", error)
        })?;
        commitments.push(commitment);
    }
    Ok(commitments)
}

/// Parses one record. An error means that the record is none; what the miner wrote into it may
/// be anything and only makes [`RawCommitment::model`] an error.
pub fn parse(uid: Uid, hotkey: Hotkey, record: &Value) -> Result<RawCommitment, DecodeError> {
    let block: BlockNumber = record.field("block")?.uint()?;
    let info = record.field("info")?;
    let fields = info.get("fields").unwrap_or(info).list()?;
    let (payload, model) = match fields.first().map(field_bytes) {
        None => (String::new(), Err("it has no fields".to_owned())),
        Some(Err(problem)) => (String::new(), Err(problem)),
        Some(Ok(bytes)) => {
            let payload = String::from_utf8_lossy(bytes).into_owned();
            (payload, model(bytes))
        }
    };
    let model = if block == 0 {
        Err("its block is 0".to_owned())
    } else {
        model
    };
    Ok(RawCommitment {
        hotkey,
        uid,
        block,
        payload,
        model,
    })
}

/// Returns the bytes of a field of any kind that has bytes: `Raw0` to `Raw128`, `BigRaw`, hashes.
fn field_bytes(field: &Value) -> Result<&[u8], String> {
    let (kind, content) = field.variant().map_err(|error| error.to_string())?;
    match content {
        Value::Bytes(bytes) => Ok(bytes),
        // `Raw0` is an array of no bytes.
        Value::Unit if kind == "Raw0" => Ok(&[]),
        _ => Err(format!("its field is of kind {kind}, which holds no text")),
    }
}

fn model(bytes: &[u8]) -> Result<ModelId, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    text.parse::<ModelId>().map_err(|error| error.to_string())
}

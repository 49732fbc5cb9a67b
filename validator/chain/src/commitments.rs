//! What miners committed to: raw records of the Commitments pallet, and the models they name.

use codec::{Compact, Decode as _};
use serde::{Deserialize, Serialize};
use subxt::dynamic::Value as Argument;

use super::{
    block::{Block, StorageItem},
    decode::{DecodeError, Value},
    error::ChainError,
    hyperparameters::argument,
};
use subnet::{
    BlockNumber, Commitment, CommitmentRules, Hotkey, ModelId, Netuid, Uid,
    payload::CommitmentStorage,
};

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
    rules: &CommitmentRules,
) -> Result<Vec<RawCommitment>, ChainError> {
    const PALLET: &str = "Commitments";
    let item = match rules.storage {
        CommitmentStorage::Commitment => "CommitmentOf",
        CommitmentStorage::Revealed => "RevealedCommitments",
    };
    let name = format!("{PALLET}.{item}");
    if !block.runtime().has_storage(PALLET, item) {
        let missing = format!("storage item {name}");
        return Err(block.runtime().missing(missing));
    }
    let neurons: Vec<_> = neurons.collect();
    let items: Vec<StorageItem<'_>> = neurons
        .iter()
        .map(|(_, hotkey)| {
            let keys = vec![argument(netuid), Argument::from_bytes(hotkey.0)];
            (PALLET, item, keys)
        })
        .collect();
    let records = block.read(&items).await?;
    let mut commitments = Vec::new();
    for ((uid, hotkey), record) in neurons.into_iter().zip(records) {
        let Some(record) = record.filter(|record| !record.is_unit()) else {
            continue;
        };
        let commitment = match rules.storage {
            CommitmentStorage::Commitment => parse(uid, hotkey, &record, rules).map(Some),
            CommitmentStorage::Revealed => revealed(uid, hotkey, &record, rules),
        };
        let commitment = commitment.map_err(|error| block.runtime().decode_error(&name, error))?;
        commitments.extend(commitment);
    }
    Ok(commitments)
}

/// Parses one record. An error means that the record is none; what the miner wrote into it may
/// be anything and only makes [`RawCommitment::model`] an error.
pub fn parse(
    uid: Uid,
    hotkey: Hotkey,
    record: &Value,
    rules: &CommitmentRules,
) -> Result<RawCommitment, DecodeError> {
    let block: BlockNumber = record.field("block")?.uint()?;
    let info = record.field("info")?;
    let fields = info.get("fields").unwrap_or(info).list()?;
    let (payload, model) = match fields.first().map(field_bytes) {
        None => (String::new(), Err("it has no fields".to_owned())),
        Some(Err(problem)) => (String::new(), Err(problem)),
        Some(Ok(bytes)) => {
            let payload = String::from_utf8_lossy(bytes).into_owned();
            (payload, model(bytes, rules))
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

/// Parses what a hotkey's timelocked commitments said: the newest that names a model counts, or the
/// newest of all. One that can't be read does not spoil the others.
pub fn revealed(
    uid: Uid,
    hotkey: Hotkey,
    record: &Value,
    rules: &CommitmentRules,
) -> Result<Option<RawCommitment>, DecodeError> {
    let mut newest: Option<RawCommitment> = None;
    for row in record.list()? {
        let [text, block] = row.tuple()?;
        let (bytes, block): (_, BlockNumber) = (text.bytes()?, block.uint()?);
        // What is revealed is what was sealed: mostly a text with its length before it.
        let bytes = without_length(bytes).unwrap_or(bytes);
        let commitment = RawCommitment {
            hotkey,
            uid,
            block,
            payload: String::from_utf8_lossy(bytes).into_owned(),
            model: model(bytes, rules),
        };
        let rank = |one: &RawCommitment| (one.model.is_ok(), one.block);
        if newest
            .as_ref()
            .is_none_or(|newest| rank(&commitment) >= rank(newest))
        {
            newest = Some(commitment);
        }
    }
    Ok(newest)
}

/// Takes off a SCALE length, if what follows is as long.
fn without_length(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let Compact(length) = Compact::<u32>::decode(&mut rest).ok()?;
    (length as usize == rest.len()).then_some(rest)
}

/// Returns the bytes of a field of any kind that has bytes: `Raw0` to `Raw128`, `BigRaw`, hashes.
fn field_bytes(field: &Value) -> Result<&[u8], String> {
    let (kind, content) = field.variant().map_err(|error| error.to_string())?;
    match content {
        Value::Bytes(bytes) => Ok(bytes),
        // `Raw0` is an array of no bytes.
        Value::Unit if kind == "Raw0" => Ok(&[]),
        _ if kind == "TimelockEncrypted" => {
            let round = content
                .get("reveal_round")
                .and_then(|round| round.uint::<u64>().ok());
            let round = round.map_or_else(String::new, |round| format!(" until round {round}"));
            Err(format!(
                "it is TimelockEncrypted{round}; a subnet file whose [commitment] has storage = \
                 \"revealed\" reads what it says then"
            ))
        }
        _ => Err(format!("its field is of kind {kind}, which holds no text")),
    }
}

fn model(bytes: &[u8], rules: &CommitmentRules) -> Result<ModelId, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    rules.read(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_readable_of_the_revealed_counts() {
        let rules = CommitmentRules {
            form: "v4|{repo}|{digest}".parse().unwrap(),
            ..CommitmentRules::default()
        };
        let row = |text: &[u8], block: u128| {
            Value::List(vec![Value::Bytes(text.to_vec()), Value::Uint(block)])
        };
        let sealed = |text: &str| codec::Encode::encode(&text.as_bytes().to_vec());
        let long = format!("v4|a/b|{}", "c".repeat(100));
        let record = Value::List(vec![
            row(&sealed("v4|a/old|x"), 5),
            row(&sealed(&long), 9),
            row(b"v4|a/plain|x", 7),
            row(&[0xff, 0xfe], 11),
            row(b"", 12),
        ]);
        let found = revealed(Uid(1), Hotkey([7; 32]), &record, &rules)
            .unwrap()
            .unwrap();
        assert_eq!((found.block, found.payload.as_str()), (9, long.as_str()));
        assert_eq!(found.model.unwrap().repository(), "a/b");
        let only_bad = Value::List(vec![row(b"", 0), row(&[0xff], 3)]);
        let found = revealed(Uid(0), Hotkey([7; 32]), &only_bad, &rules)
            .unwrap()
            .unwrap();
        assert_eq!((found.block, found.model.is_err()), (3, true));
        let none = revealed(Uid(0), Hotkey([7; 32]), &Value::List(vec![]), &rules);
        assert_eq!(none.unwrap(), None);
    }
}

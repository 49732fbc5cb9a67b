//! What the last epoch made of a validator's weights: its trust, and the consensus it was held against.
//!
//! `SubtensorModule.ValidatorTrust` and `Consensus` are columns over the uids, written by `epoch` in the pallet; the
//! metagraph API has no column for the former.

use super::{
    block::StorageItem,
    client::Client,
    decode::Value,
    error::ChainError,
    hyperparameters::{PALLET, argument},
    weights::preflight,
};
use subnet::{BlockNumber, Netuid, Uid};

/// A validator's trust at a block, with what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    pub block: BlockNumber,
    /// Of 65535.
    pub validator_trust: u16,
    /// The consensus of the uids that have any, of 65535.
    pub consensus: Vec<(Uid, u16)>,
    /// The validator's weights as the chain has them.
    pub weights: Vec<(Uid, u16)>,
}

impl Client {
    /// Reads the trust of a uid, all of it at one block.
    pub async fn trust(&self, netuid: Netuid, uid: Uid) -> Result<Trust, ChainError> {
        let block = self.head().await?;
        let column = |item| -> StorageItem<'static> { (PALLET, item, vec![argument(netuid)]) };
        let columns = block
            .read(&[column("ValidatorTrust"), column("Consensus")])
            .await?;
        let mut columns = columns.into_iter().map(|column| match column {
            None => Ok(Vec::new()),
            Some(column) => column.list()?.iter().map(Value::uint::<u16>).collect(),
        });
        let mut next = |item| match columns.next() {
            None => Ok(Vec::new()),
            Some(column) => column.map_err(|error| block.runtime().decode_error(item, error)),
        };
        let (trust, consensus) = (next("ValidatorTrust")?, next("Consensus")?);
        let weights = preflight::stored_weights(&block, netuid, 0, uid).await?;
        Ok(Trust {
            block: block.number(),
            validator_trust: trust.get(usize::from(uid.0)).copied().unwrap_or(0),
            consensus: (0..)
                .map(Uid)
                .zip(consensus)
                .filter(|(_, share)| *share > 0)
                .collect(),
            weights: weights
                .into_iter()
                .map(|(uid, weight)| (Uid(uid), weight))
                .collect(),
        })
    }
}

//! Against twins: a lock per hotkey on this machine, an alarm for weights that others set with it.

use serde::{Deserialize, Serialize};
use shared::file::{FileError, FileLock, LockError};
use subxt::config::{Hasher as _, substrate::BlakeTwo256};

use crate::{
    client::Client,
    error::ChainError,
    metagraph::{ChainSnapshot, Neuron},
    wallet::Wallet,
};
use subnet::{BlockNumber, Hotkey, Uid};

/// Held by the one validator that uses a hotkey on this machine.
#[derive(Debug)]
pub struct TwinGuard {
    _lock: FileLock,
    /// Last weight set known to be ours, or found at the start.
    known: Option<BlockNumber>,
}

/// Weights were set with our hotkey, and not by us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "uid {uid} set weights in block {block}, and this validator did not: does another one use the hotkey {hotkey}?"
)]
pub struct TwinAlarm {
    pub hotkey: Hotkey,
    pub uid: Uid,
    /// Block of the foreign weight set.
    pub block: BlockNumber,
}

/// Why nobody can tell whose a weight set is.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The block can't be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What our processes have sent can't be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl TwinGuard {
    /// Takes the lock of the one validator of a hotkey on a snapshot's chain and subnet, or says
    /// which process holds it.
    pub fn acquire(wallet: &Wallet, snapshot: &ChainSnapshot) -> Result<Self, LockError> {
        let account = wallet.account(snapshot.genesis_hash);
        Ok(Self {
            _lock: wallet.locks.validator(account, snapshot.netuid)?,
            known: None,
        })
    }

    /// Looks whether our neuron's last weight set is ours. The first look takes what it finds.
    pub async fn check(
        &mut self,
        client: &Client,
        wallet: &Wallet,
        neuron: &Neuron,
    ) -> Result<Option<TwinAlarm>, TwinError> {
        let block = neuron.last_update;
        let is_new = self.known.is_some_and(|known| block > known);
        if !is_new || block == neuron.registered_at {
            self.known = self.known.max(Some(block));
            return Ok(None);
        }
        let hash = client.hash_at(block).await?;
        let mut ours = false;
        for extrinsic in client.extrinsics(hash).await? {
            ours |= wallet.has_sent(client.genesis(), &BlakeTwo256.hash(&extrinsic))?;
        }
        self.known = Some(block);
        Ok((!ours).then_some(TwinAlarm {
            hotkey: neuron.hotkey,
            uid: neuron.uid,
            block,
        }))
    }
}

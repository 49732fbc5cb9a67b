//! Against twins: a lock per hotkey on this machine, an alarm for weights that others set with it.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shared::file::{FileLock, LockError};
use subxt::config::{Hasher as _, substrate::BlakeTwo256};
use tokio::time::{Instant, sleep};

use crate::{client::Client, error::ChainError, metagraph::Neuron, wallet::Wallet};
use subnet::{BlockNumber, Hotkey, Uid};

/// How often a lock held by another process is tried again.
const RETRY: Duration = Duration::from_millis(200);

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
    /// The hotkey.
    pub hotkey: Hotkey,
    /// Its uid.
    pub uid: Uid,
    /// Block of the foreign weight set.
    pub block: BlockNumber,
}

impl TwinGuard {
    /// Takes the lock of a hotkey, or says which process holds it.
    pub fn acquire(folder: &Path, hotkey: &Hotkey) -> Result<Self, LockError> {
        let path = folder.join(format!("{hotkey}.validator.lock"));
        let lock = FileLock::try_acquire(&path, &format!("validator of {hotkey}"))?;
        Ok(Self {
            _lock: lock,
            known: None,
        })
    }

    /// Looks whether our neuron's last weight set is ours. The first look takes what it finds.
    pub async fn check(
        &mut self,
        client: &Client,
        wallet: &Wallet,
        neuron: &Neuron,
    ) -> Result<Option<TwinAlarm>, ChainError> {
        let block = neuron.last_update;
        let is_new = self.known.is_some_and(|known| block > known);
        if !is_new || block == neuron.registered_at {
            self.known = self.known.max(Some(block));
            return Ok(None);
        }
        let hash = client.hash_at(block).await?;
        let extrinsics = client.extrinsics(hash).await?;
        let ours = extrinsics
            .iter()
            .any(|bytes| wallet.has_sent(&BlakeTwo256.hash(bytes)));
        self.known = Some(block);
        Ok((!ours).then_some(TwinAlarm {
            hotkey: neuron.hotkey,
            uid: neuron.uid,
            block,
        }))
    }
}

/// Waits for the other processes of this machine that are about to use the hotkey's nonce. A lock
/// that can't be had only costs the guarantee: the weights matter more.
pub(super) async fn nonce_lock(wallet: &Wallet, until: Instant) -> Option<FileLock> {
    let hotkey = wallet.hotkey();
    let path = wallet.locks.as_ref()?.join(format!("{hotkey}.nonce.lock"));
    loop {
        match FileLock::try_acquire(&path, "setting weights") {
            Ok(lock) => return Some(lock),
            Err(LockError::Held { .. }) if Instant::now() + RETRY < until => sleep(RETRY).await,
            Err(error) => {
                tracing::warn!(%error, "setting weights without the lock of the hotkey's nonce");
                return None;
            }
        }
    }
}

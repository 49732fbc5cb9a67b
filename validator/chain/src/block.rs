//! The chain's state at one block: every read is pinned to its hash.

use std::sync::Arc;

use subxt::{
    config::{RpcConfigFor, substrate::H256},
    rpcs::LegacyRpcMethods,
};

use super::{
    decode::Value,
    error::ChainError,
    runtime::{Runtime, Subtensor},
};
use subnet::BlockNumber;

/// Keys asked for in one request.
const KEYS_PER_REQUEST: usize = 512;

pub(super) type Methods = LegacyRpcMethods<RpcConfigFor<Subtensor>>;

/// One storage item to read: pallet, item, keys.
pub(super) type StorageItem<'a> = (&'a str, &'a str, Vec<subxt::dynamic::Value>);

/// The state at one block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block {
    pub(super) methods: Methods,
    pub(super) hash: H256,
    pub(super) number: BlockNumber,
    pub(super) runtime: Arc<Runtime>,
}

impl Block {
    /// Returns the block's height.
    pub const fn number(&self) -> BlockNumber {
        self.number
    }

    /// Returns the block's hash.
    pub const fn hash(&self) -> [u8; 32] {
        self.hash.0
    }

    /// Returns the runtime of this block.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Reads storage items, as many to a request as fit. An item that the runtime does not have
    /// reads as `None`, and so does an absent one without default.
    pub(super) async fn read(
        &self,
        items: &[StorageItem<'_>],
    ) -> Result<Vec<Option<Value>>, ChainError> {
        let mut keys = Vec::with_capacity(items.len());
        for (pallet, item, parts) in items {
            keys.push(if self.runtime.has_storage(pallet, item) {
                Some(self.runtime.storage_key(pallet, item, parts.clone())?)
            } else {
                None
            });
        }
        let present: Vec<&[u8]> = keys
            .iter()
            .flatten()
            .map(|key| key.bytes.as_slice())
            .collect();
        let stored = self.stored(&present).await?;
        let mut stored = stored.iter();
        keys.iter()
            .map(|key| match key {
                None => Ok(None),
                Some(key) => {
                    let bytes = stored.next().and_then(Option::as_deref);
                    self.runtime.storage_value(key, bytes)
                }
            })
            .collect()
    }

    /// Reads one storage item that the runtime must have.
    pub(super) async fn read_one(
        &self,
        pallet: &str,
        item: &str,
        keys: Vec<subxt::dynamic::Value>,
    ) -> Result<Option<Value>, ChainError> {
        let key = self.runtime.storage_key(pallet, item, keys)?;
        let stored = self.stored(&[&key.bytes]).await?;
        self.runtime
            .storage_value(&key, stored.first().and_then(Option::as_deref))
    }

    /// Fetches the bytes under keys, in their order.
    async fn stored(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, ChainError> {
        const METHOD: &str = "state_queryStorageAt";
        let mut stored = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(KEYS_PER_REQUEST) {
            let sets = self
                .methods
                .state_query_storage_at(chunk.iter().copied(), Some(self.hash))
                .await
                .map_err(ChainError::on(METHOD))?;
            let changes: std::collections::BTreeMap<Vec<u8>, Option<Vec<u8>>> = sets
                .into_iter()
                .flat_map(|set| set.changes)
                .map(|(key, value)| (key.0, value.map(|value| value.0)))
                .collect();
            for key in chunk {
                let value = changes.get(*key).ok_or_else(|| ChainError::Garbled {
                    method: METHOD,
                    problem: "it left out a key that was asked for".to_owned(),
                })?;
                stored.push(value.clone());
            }
        }
        Ok(stored)
    }

    pub(super) async fn call(
        &self,
        api: &str,
        method: &str,
        arguments: Vec<subxt::dynamic::Value>,
    ) -> Result<Value, ChainError> {
        let (name, bytes) = self.runtime.api_call(api, method, arguments)?;
        let answer = self
            .methods
            .state_call(&name, Some(&bytes), Some(self.hash))
            .await
            .map_err(ChainError::on("state_call"))?;
        self.runtime.api_answer(api, method, &answer)
    }
}

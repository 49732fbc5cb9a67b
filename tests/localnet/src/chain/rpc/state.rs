//! `state_*`: what the chain held after any block.

use std::sync::Arc;

use jsonrpsee::{RpcModule, core::RegisterMethodError, types::ErrorObjectOwned};
use serde_json::json;
use sp_core::{Bytes, H256};
use sp_runtime::traits::Get;

use super::{Answer, Arguments, block_at, chain::send, hex, internal, method};
use crate::chain::{ledger::hash_of, node::Node, runtime};

/// Most keys in one answer.
const MAX_KEYS: usize = 1000;

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "state_getStorage", |node, arguments| {
        Ok(value(node, arguments)?.map(hex))
    })?;
    module.register_alias("state_getStorageAt", "state_getStorage")?;
    method(module, "state_getStorageHash", |node, arguments| {
        Ok(value(node, arguments)?.map(|value| hash_of(&value)))
    })?;
    method(module, "state_getStorageSize", |node, arguments| {
        Ok(value(node, arguments)?.map(|value| value.len()))
    })?;
    method(module, "state_getKeysPaged", |node, arguments| {
        let prefix: Option<Bytes> = arguments.next()?;
        let count: usize = arguments.next()?;
        let start: Option<Bytes> = arguments.optional()?;
        let at: Option<H256> = arguments.optional()?;
        if count > MAX_KEYS {
            let text = format!("count exceeds maximum value. value: {count}, max: {MAX_KEYS}");
            return Err(ErrorObjectOwned::owned(4002, text, None::<()>));
        }
        keys(node, prefix, start, count, at)
    })?;
    module.register_alias("state_getKeysPagedAt", "state_getKeysPaged")?;
    method(module, "state_getKeys", |node, arguments| {
        let prefix: Bytes = arguments.next()?;
        let at: Option<H256> = arguments.optional()?;
        keys(node, Some(prefix), None, usize::MAX, at)
    })?;
    method(module, "state_queryStorageAt", |node, arguments| {
        let keys: Vec<Bytes> = arguments.next()?;
        let at: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let block = block_at(node, &ledger, at)?;
        let changes: Vec<_> = keys
            .into_iter()
            .map(|key| (ledger.value(block, &key.0).map(hex), key))
            .collect();
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(value, key)| (key, value))
            .collect();
        Ok(json!([{ "block": block.hash, "changes": changes }]))
    })?;
    method(module, "state_call", |node, arguments| {
        let name: String = arguments.next()?;
        let data: Bytes = arguments.next()?;
        let at: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let block = block_at(node, &ledger, at)?;
        let answer = ledger
            .read(block, || runtime::apis::call(&name, &data))
            .map_err(internal)?;
        answer
            .map(hex)
            .ok_or_else(|| internal(format!("Exported method {name} is not found")))
    })?;
    module.register_alias("state_callAt", "state_call")?;
    method(module, "state_getMetadata", |node, arguments| {
        let at: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let block = block_at(node, &ledger, at)?;
        ledger
            .read(block, || hex(runtime::metadata::v14()))
            .map_err(internal)
    })?;
    method(module, "state_getRuntimeVersion", |node, arguments| {
        let at: Option<H256> = arguments.optional()?;
        version(node, at)
    })?;
    module.register_alias("chain_getRuntimeVersion", "state_getRuntimeVersion")?;
    subscriptions(module)
}

fn subscriptions(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, pending, node, _| async move {
            let mut changes = node.watch();
            let Ok(sink) = pending.accept().await else {
                return;
            };
            let mut last = None;
            while changes.changed().await.is_ok() && !sink.is_closed() {
                let Ok(now) = version(&node, None) else {
                    return;
                };
                if last.as_ref() != Some(&now) {
                    node.faults.wait_for("state_runtimeVersion").await;
                    if send(&sink, &now).await.is_err() {
                        return;
                    }
                    last = Some(now);
                }
            }
        },
    )?;
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, node, _| async move {
            let Ok(keys) = params.one::<Vec<Bytes>>() else {
                let error = ErrorObjectOwned::owned(4002, "name the keys", None::<()>);
                pending.reject(error).await;
                return;
            };
            let mut changes = node.watch();
            let Ok(sink) = pending.accept().await else {
                return;
            };
            let mut last: Option<Vec<Option<Vec<u8>>>> = None;
            while changes.changed().await.is_ok() && !sink.is_closed() {
                let (hash, now) = {
                    let ledger = node.ledger();
                    let value = |key: &Bytes| {
                        node.block_of(&ledger, None)
                            .and_then(|block| ledger.value(block, &key.0))
                    };
                    (
                        node.block_of(&ledger, None).map(|block| block.hash),
                        keys.iter().map(value).collect::<Vec<_>>(),
                    )
                };
                if last.as_ref() == Some(&now) {
                    continue;
                }
                let pairs: Vec<_> = keys
                    .iter()
                    .zip(now.iter().map(|value| value.clone().map(hex)))
                    .collect();
                node.faults.wait_for("state_storage").await;
                let set = json!({ "block": hash, "changes": pairs });
                if send(&sink, &set).await.is_err() {
                    return;
                }
                last = Some(now);
            }
        },
    )?;
    Ok(())
}

fn value(node: &Node, arguments: &mut Arguments<'_>) -> Answer<Option<Vec<u8>>> {
    let key: Bytes = arguments.next()?;
    let at: Option<H256> = arguments.optional()?;
    let ledger = node.ledger();
    Ok(ledger.value(block_at(node, &ledger, at)?, &key.0))
}

fn keys(
    node: &Node,
    prefix: Option<Bytes>,
    start: Option<Bytes>,
    count: usize,
    at: Option<H256>,
) -> Answer<Vec<Bytes>> {
    let ledger = node.ledger();
    let block = block_at(node, &ledger, at)?;
    let prefix = prefix.map_or_else(Vec::new, |prefix| prefix.0);
    let keys = ledger.keys(
        block,
        &prefix,
        start.as_ref().map(|start| &start.0[..]),
        count,
    );
    Ok(keys.into_iter().map(hex).collect())
}

fn version(node: &Node, at: Option<H256>) -> Answer<serde_json::Value> {
    let ledger = node.ledger();
    let block = block_at(node, &ledger, at)?;
    let version = ledger
        .read(block, runtime::Version::get)
        .map_err(internal)?;
    serde_json::to_value(version).map_err(internal)
}

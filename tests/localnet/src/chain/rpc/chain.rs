//! `chain_*`: blocks, headers, and heads as they come.

use std::sync::Arc;

use codec::Encode;
use jsonrpsee::{
    PendingSubscriptionSink, RpcModule, SubscriptionMessage, core::RegisterMethodError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sp_core::H256;

use super::{Answer, hex, internal, method};
use crate::chain::{ledger::Ledger, node::Node};

/// What `chain_getBlockHash` may be asked for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    Many(Vec<Number>),
    One(Number),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u32),
    Hex(String),
}

impl Number {
    fn hash(&self, node: &Node, ledger: &Ledger) -> Option<H256> {
        let number = match self {
            Self::Plain(number) => *number,
            Self::Hex(digits) => u32::from_str_radix(digits.trim_start_matches("0x"), 16).ok()?,
        };
        node.block(ledger, number).map(|block| block.hash)
    }
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "chain_getBlockHash", |node, arguments| {
        let ledger = node.ledger();
        Ok(match arguments.optional::<Numbers>()? {
            None => json!(node.block_of(&ledger, None).map(|block| block.hash)),
            Some(Numbers::One(number)) => json!(number.hash(node, &ledger)),
            Some(Numbers::Many(numbers)) => {
                json!(
                    numbers
                        .iter()
                        .map(|number| number.hash(node, &ledger))
                        .collect::<Vec<_>>()
                )
            }
        })
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    method(module, "chain_getFinalizedHead", |node, _| {
        let ledger = node.ledger();
        Ok(ledger
            .block(ledger.finalized_number().min(node.top(&ledger)))
            .map(|block| block.hash))
    })?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;
    method(module, "chain_getHeader", |node, arguments| {
        let hash: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let block = node.block_of(&ledger, hash);
        block
            .map(|block| serde_json::to_value(&block.header))
            .transpose()
            .map_err(internal)
    })?;
    method(module, "chain_getBlock", |node, arguments| {
        let hash: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let block = node.block_of(&ledger, hash);
        Ok(block.map(|block| {
            let extrinsics: Vec<_> = block
                .extrinsics
                .iter()
                .map(|extrinsic| hex(extrinsic.encode()))
                .collect();
            json!({
                "block": { "header": block.header, "extrinsics": extrinsics },
                "justifications": null,
            })
        }))
    })?;
    heads(
        module,
        "chain_subscribeNewHeads",
        "chain_newHead",
        "chain_unsubscribeNewHeads",
        false,
    )?;
    heads(
        module,
        "chain_subscribeAllHeads",
        "chain_allHead",
        "chain_unsubscribeAllHeads",
        false,
    )?;
    heads(
        module,
        "chain_subscribeFinalizedHeads",
        "chain_finalizedHead",
        "chain_unsubscribeFinalizedHeads",
        true,
    )?;
    module.register_alias("chain_subscribeNewHead", "chain_subscribeNewHeads")?;
    module.register_alias("chain_unsubscribeNewHead", "chain_unsubscribeNewHeads")
}

/// Registers a subscription to heads: the newest first, then each that follows, none left out.
fn heads(
    module: &mut RpcModule<Arc<Node>>,
    subscribe: &'static str,
    notification: &'static str,
    unsubscribe: &'static str,
    finalized: bool,
) -> Result<(), RegisterMethodError> {
    module
        .register_subscription(
            subscribe,
            notification,
            unsubscribe,
            move |_, pending, node, _| {
                send_heads(pending, Arc::clone(&node), notification, finalized)
            },
        )
        .map(drop)
}

async fn send_heads(
    pending: PendingSubscriptionSink,
    node: Arc<Node>,
    notification: &'static str,
    finalized: bool,
) {
    let mut changes = node.watch();
    let newest = |ledger: &Ledger| {
        if finalized {
            ledger.finalized_number().min(node.top(ledger))
        } else {
            node.top(ledger)
        }
    };
    let mut next = newest(&node.ledger());
    let Ok(sink) = pending.accept().await else {
        return;
    };
    loop {
        tokio::select! {
            () = sink.closed() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        while next <= newest(&node.ledger()) {
            node.faults.wait_for(notification).await;
            let Ok(header) = header(&node, next) else {
                return;
            };
            if send(&sink, &header).await.is_err() {
                return;
            }
            next += 1;
        }
    }
}

fn header(node: &Node, number: u32) -> Answer<Value> {
    let ledger = node.ledger();
    serde_json::to_value(ledger.block(number).map(|block| &block.header)).map_err(internal)
}

pub(super) async fn send(
    sink: &jsonrpsee::SubscriptionSink,
    value: &Value,
) -> Result<(), jsonrpsee::core::SubscriptionError> {
    let message = SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), value)?;
    sink.send(message)
        .await
        .map_err(jsonrpsee::core::SubscriptionError::from)
}

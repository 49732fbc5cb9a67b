//! `author_*`: extrinsics on their way into a block.

use std::sync::Arc;

use codec::Encode;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, core::RegisterMethodError};
use serde_json::{Value, json};
use sp_core::{Bytes, H256};

use super::{Answer, Arguments, chain::send, hex, method};
use crate::chain::{
    node::Node,
    pool::{Rejected, Status},
};

impl From<Rejected> for jsonrpsee::types::ErrorObjectOwned {
    fn from(error: Rejected) -> Self {
        Self::owned(error.code, error.message, error.data)
    }
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "author_submitExtrinsic", |node, arguments| {
        let bytes: Bytes = arguments.next()?;
        Ok(node.submit(&bytes.0)?)
    })?;
    method(module, "author_pendingExtrinsics", |node, _| {
        let ledger = node.ledger();
        Ok(ledger
            .pool
            .pending()
            .map(|extrinsic| hex(extrinsic.encode()))
            .collect::<Vec<_>>())
    })?;
    module
        .register_subscription(
            "author_submitAndWatchExtrinsic",
            "author_extrinsicUpdate",
            "author_unwatchExtrinsic",
            |params, pending, node, _| async move {
                let submitted: Answer<H256> = Arguments::new(&params)
                    .next::<Bytes>()
                    .and_then(|bytes| Ok(node.submit(&bytes.0)?));
                match submitted {
                    Ok(hash) => follow(pending, Arc::clone(&node), hash).await,
                    Err(error) => pending.reject(error).await,
                }
            },
        )
        .map(drop)
}

/// Tells each step of an extrinsic until its last.
async fn follow(pending: PendingSubscriptionSink, node: Arc<Node>, hash: H256) {
    let mut changes = node.watch();
    let Ok(sink) = pending.accept().await else {
        return;
    };
    let mut told = Vec::new();
    loop {
        tokio::select! {
            () = sink.closed() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let (steps, done) = steps(&node, hash, told.is_empty());
        for step in steps {
            if told.contains(&step) {
                continue;
            }
            node.faults.wait_for("author_extrinsicUpdate").await;
            if send(&sink, &step).await.is_err() {
                return;
            }
            told.push(step);
        }
        if done {
            return;
        }
    }
}

/// Returns the steps that an extrinsic has behind it, and whether it has none before it.
fn steps(node: &Node, hash: H256, is_new: bool) -> (Vec<Value>, bool) {
    let ledger = node.ledger();
    let ready = || vec![json!("ready")];
    match ledger.pool.status(hash) {
        None => (Vec::new(), true),
        Some(Status::Future) => (vec![json!("future")], false),
        Some(Status::Ready) => (ready(), false),
        Some(Status::Invalid) => (vec![json!("invalid")], true),
        Some(Status::Usurped(by)) => (vec![json!({ "usurped": by })], true),
        Some(Status::InBlock(number)) => {
            let mut steps = if is_new { ready() } else { Vec::new() };
            let block = ledger.block(number).map(|block| block.hash);
            steps.push(json!({ "inBlock": block }));
            let is_final = number <= ledger.finalized_number();
            if is_final {
                steps.push(json!({ "finalized": block }));
            }
            (steps, is_final)
        }
    }
}

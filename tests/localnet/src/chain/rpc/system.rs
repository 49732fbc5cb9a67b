//! `system_*` and `payment_*`: what the node is, and small questions of wallets.

use std::sync::Arc;

use codec::{Decode, Encode};
use jsonrpsee::{RpcModule, core::RegisterMethodError, types::ErrorObjectOwned};
use serde_json::json;
use sp_core::{Bytes, H256, crypto::Ss58Codec};
use sp_runtime::generic::Preamble;

use super::{block_at, internal, method};
use crate::chain::{
    node::Node,
    runtime::{AccountId, Address, Extrinsic, System, TransactionPayment},
};

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    method(module, "system_name", |_, _| Ok("localnet"))?;
    method(module, "system_version", |_, _| {
        Ok(env!("CARGO_PKG_VERSION"))
    })?;
    method(module, "system_chain", |_, _| Ok("Bittensor localnet"))?;
    method(module, "system_chainType", |_, _| Ok("Local"))?;
    method(module, "system_properties", |_, _| {
        Ok(json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }))
    })?;
    method(module, "system_health", |_, _| {
        Ok(json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }))
    })?;
    method(module, "system_peers", |_, _| Ok(json!([])))?;
    method(module, "system_nodeRoles", |_, _| Ok(json!(["Authority"])))?;
    method(module, "system_syncState", |node, _| {
        let best = {
            let ledger = node.ledger();
            node.top(&ledger)
        };
        Ok(json!({ "startingBlock": 0, "currentBlock": best, "highestBlock": best }))
    })?;
    method(module, "system_accountNextIndex", |node, arguments| {
        let account: String = arguments.next()?;
        let account = AccountId::from_ss58check(&account)
            .map_err(|error| ErrorObjectOwned::owned(-32602, format!("{error:?}"), None::<()>))?;
        let ledger = node.ledger();
        let known = || System::account_nonce(&account);
        let mut nonce = ledger.read(ledger.best(), known).map_err(internal)?;
        let signer = Address::Id(account);
        let signed_by_it = |extrinsic: &&Extrinsic| matches!(&extrinsic.preamble, Preamble::Signed(by, ..) if *by == signer);
        nonce += ledger.pool.pending().filter(signed_by_it).count() as u32;
        Ok(nonce)
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;
    method(module, "payment_queryInfo", |node, arguments| {
        let bytes: Bytes = arguments.next()?;
        let at: Option<H256> = arguments.optional()?;
        let ledger = node.ledger();
        let extrinsic = Extrinsic::decode(&mut &bytes.0[..]).map_err(internal)?;
        let length = extrinsic.encoded_size() as u32;
        let info = ledger
            .read(block_at(node, &ledger, at)?, || {
                TransactionPayment::query_info(extrinsic, length)
            })
            .map_err(internal)?;
        Ok(json!({
            "weight": info.weight,
            "class": info.class,
            "partialFee": info.partial_fee.to_string(),
        }))
    })
}

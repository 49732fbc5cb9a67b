//! A weight set as a signed transaction, and what a node's refusal of it means.

use subxt::{
    config::{DefaultExtrinsicParamsBuilder, substrate::H256},
    dynamic::Value as Argument,
    ext::scale_value::Composite,
    tx::DynamicPayload,
};

use super::{
    Method, Preflight, SetWeightsError, WeightsReceipt, WeightsRequest, calls,
    confirm::{self, hex_hash},
};
use crate::{
    block::Block, error::ChainError, hyperparameters::PALLET, runtime::Runtime, wallet::Wallet,
};
use subnet::BlockNumber;

/// Blocks for which a transaction is valid: long enough for a busy pool, short enough to die.
pub(super) const ERA: u64 = 64;

/// A signed transaction that may be on the chain, in a pool, or lost.
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) hash: H256,
    pub(super) nonce: u64,
    pub(super) birth: BlockNumber,
    pub(super) spec_version: u32,
    /// What the receipt will say, as far as it is known before inclusion.
    pub(super) receipt: WeightsReceipt,
}

impl Sent {
    /// Signs the call that this runtime and subnet take.
    pub(super) async fn sign(
        head: &Block,
        preflight: &Preflight,
        wallet: &Wallet,
        request: &WeightsRequest,
    ) -> Result<Self, SetWeightsError> {
        let Some(neuron) = &preflight.neuron else {
            return Err(SetWeightsError::Refused(preflight.refusals.clone()));
        };
        let rules = &preflight.hyperparameters;
        let hotkey = wallet.hotkey();
        let runtime = &head.runtime;
        let (plan, (call, arguments)) = if rules.commit_reveal {
            let plan = calls::reveal_plan(head, request, rules)?;
            let beacon = calls::beacon_key(head).await?;
            let version = rules.commit_reveal_version;
            let call = calls::commit(runtime, request, &hotkey, plan, version, beacon)?;
            (Some(plan), call)
        } else {
            (None, calls::plain(runtime, request)?)
        };
        let nonce = confirm::nonce(head, hotkey.0).await?;
        let birth = (head.number(), head.hash);
        let (bytes, hash) = signed(runtime, birth, nonce, call, arguments, wallet)?;
        let receipt = WeightsReceipt {
            hotkey,
            uid: neuron.uid,
            netuid: request.netuid,
            mechanism: request.mechanism,
            call: call.to_owned(),
            method: plan.map_or(Method::Plain, |_| Method::TimelockedCommit),
            weights: request.weights.clone(),
            version_key: request.version_key,
            extrinsic_hash: hex_hash(hash),
            block: 0,
            block_hash: String::new(),
            finalized: false,
            stored: None,
            reveal: plan,
            attempts: 0,
            latency_millis: 0,
        };
        let spec_version = runtime.spec_version();
        Ok(Self {
            bytes,
            hash,
            nonce,
            birth: birth.0,
            spec_version,
            receipt,
        })
    }
}

/// Signs a call of the subnet's pallet, valid for [`ERA`] blocks from `birth`, without a tip.
pub(crate) fn signed(
    runtime: &std::sync::Arc<Runtime>,
    birth: (BlockNumber, H256),
    nonce: u64,
    call: &str,
    arguments: Vec<Argument>,
    wallet: &Wallet,
) -> Result<(Vec<u8>, H256), ChainError> {
    let payload: DynamicPayload<Composite<()>> =
        subxt::dynamic::tx(PALLET, call, Composite::unnamed(arguments));
    let parameters = DefaultExtrinsicParamsBuilder::new()
        .mortal_from_unchecked(ERA, birth.0, birth.1)
        .nonce(nonce)
        .build();
    let signed = runtime
        .encoder(birth.0)
        .tx()
        .create_signable_offline(&payload, parameters)
        .and_then(|mut transaction| transaction.sign(wallet))
        .map_err(|error| runtime.encode_error(format!("call {PALLET}.{call}"), &error))?;
    let hash = signed.hash();
    Ok((signed.into_encoded(), hash))
}

/// Returns whether trying again may help.
pub(super) fn is_passing(error: &ChainError) -> bool {
    !matches!(
        error,
        ChainError::Missing { .. } | ChainError::Encode { .. } | ChainError::NoSubnet(_)
    ) && !matches!(error, ChainError::Rpc(error) if error.is_configuration())
}

/// Returns what a refusal of the pool means, if no second try can change it.
pub(super) fn lasting_refusal(message: &str) -> Option<&'static str> {
    if message.contains("Inability to pay some fees") {
        return Some("the hotkey can't pay the fee this chain asks for weights");
    }
    let code: u8 = message
        .split("Custom error: ")
        .nth(1)?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()?;
    Some(match code {
        0 => "the coldkey is being swapped",
        1 => "the stake is below the chain's threshold for setting weights",
        3 => "the subnet does not exist",
        4 | 10 => "the hotkey is not registered on the subnet",
        15 => "the commit's reveal round is not accepted",
        18 => "uids and weights differ in number",
        19 => "the hotkey has no uid",
        21 => "the swap of the coldkey is disputed",
        25 => "the coldkey does not own the hotkey",
        255 => "the request is not acceptable in the chain's present state",
        // 6 is the rate limit: the next look waits it out.
        _ => return None,
    })
}

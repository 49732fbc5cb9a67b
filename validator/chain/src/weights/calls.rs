//! The calls that carry weights, by what the runtime has.

use codec::Encode as _;
use subxt::dynamic::Value as Argument;

use super::{Refusal, RevealPlan, SetWeightsError, WeightsRequest};
use crate::{
    block::Block,
    error::ChainError,
    hyperparameters::{Hyperparameters, PALLET, argument},
    runtime::Runtime,
    timelock::{self, LegacyPayload, Payload},
};
use subnet::Hotkey;

/// A call's name and arguments.
pub(crate) type Call = (&'static str, Vec<Argument>);

/// Returns the call that sets weights in the clear.
pub(crate) fn plain(runtime: &Runtime, request: &WeightsRequest) -> Result<Call, ChainError> {
    let list = |numbers: &[u16]| {
        Argument::unnamed_composite(
            numbers
                .iter()
                .map(|number| Argument::u128((*number).into())),
        )
    };
    let call = choose(
        runtime,
        &[
            ("set_weights", request.mechanism == 0),
            ("set_mechanism_weights", true),
        ],
    )?;
    let mut arguments = vec![argument(request.netuid)];
    if call == "set_mechanism_weights" {
        arguments.push(Argument::u128(request.mechanism.into()));
    }
    arguments.extend([
        list(&request.weights.uids),
        list(&request.weights.values),
        Argument::u128(request.version_key.into()),
    ]);
    Ok((call, arguments))
}

/// Returns the call that commits weights encrypted for a beacon, quicknet if none is given.
pub(crate) fn commit(
    runtime: &Runtime,
    request: &WeightsRequest,
    hotkey: &Hotkey,
    plan: RevealPlan,
    version: Option<u16>,
    beacon: Option<[u8; 96]>,
) -> Result<Call, SetWeightsError> {
    let main = request.mechanism == 0;
    let call = choose(
        runtime,
        &[
            ("commit_timelocked_weights", main),
            ("commit_timelocked_mechanism_weights", true),
            ("commit_crv3_mechanism_weights", true),
            ("commit_crv3_weights", main),
        ],
    )?;
    let (uids, values) = (request.weights.uids.clone(), request.weights.values.clone());
    let version_key = request.version_key;
    let payload = if call == "commit_crv3_weights" {
        LegacyPayload {
            uids,
            values,
            version_key,
        }
        .encode()
    } else {
        Payload {
            hotkey: hotkey.0.to_vec(),
            uids,
            values,
            version_key,
        }
        .encode()
    };
    let commit = match beacon {
        Some(key) => timelock::encrypt_for(&payload, plan.round, &key),
        None => timelock::encrypt(&payload, plan.round),
    };
    let commit = commit.map_err(SetWeightsError::Encrypt)?;
    let mut arguments = vec![argument(request.netuid)];
    if call.contains("mechanism") {
        arguments.push(Argument::u128(request.mechanism.into()));
    }
    arguments.extend([
        Argument::from_bytes(commit),
        Argument::u128(plan.round.into()),
    ]);
    if call.starts_with("commit_timelocked") {
        arguments.push(Argument::u128(version.unwrap_or(4).into()));
    }
    Ok((call, arguments))
}

/// Computes when a commit sent now will be revealed.
pub(super) fn reveal_plan(
    block: &Block,
    request: &WeightsRequest,
    rules: &Hyperparameters,
) -> Result<RevealPlan, SetWeightsError> {
    let head = block.number();
    let period = rules.reveal_period_epochs;
    let start = rules
        .epoch
        .reveal_start(request.netuid, head, period)
        .ok_or_else(|| SetWeightsError::Refused(vec![Refusal::NoReveal]))?;
    // The chain's clock, not ours, decides when a block comes.
    let now = rules.time.unwrap_or_else(shared::clock::unix_seconds);
    let round = timelock::reveal_round(head, start, rules.block_millis, now);
    Ok(RevealPlan {
        round,
        block: start,
    })
}

/// Reads the key of the beacon this chain trusts; quicknet's is used where it names none.
pub(super) async fn beacon_key(block: &Block) -> Result<Option<[u8; 96]>, ChainError> {
    let config = block
        .read(&[("Drand", "BeaconConfig", vec![])])
        .await?
        .pop()
        .flatten();
    let key = config.as_ref().and_then(|config| config.get("public_key"));
    let Some(key) = key else { return Ok(None) };
    let bytes = key
        .bytes()
        .map_err(|error| block.runtime().decode_error("Drand.BeaconConfig", error))?;
    Ok(bytes.try_into().ok())
}

/// Returns the first call that fits and that the runtime has.
fn choose(runtime: &Runtime, calls: &[(&'static str, bool)]) -> Result<&'static str, ChainError> {
    let fitting = || {
        calls
            .iter()
            .filter(|(_, fits)| *fits)
            .map(|(call, _)| *call)
    };
    fitting()
        .find(|call| runtime.has_call(PALLET, call))
        .ok_or_else(|| {
            let names: Vec<_> = fitting().map(|call| format!("{PALLET}.{call}")).collect();
            runtime.missing(format!("call {}", names.join(" or ")))
        })
}

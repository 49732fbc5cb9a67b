//! What of a runtime this version can use: asked of its metadata alone, before an upgrade.

use std::sync::Arc;

use serde::Serialize;
use subxt::dynamic::Value as Argument;

use super::{
    decode::{DecodeError, Value},
    hyperparameters::{PALLET, argument},
    metagraph::NeuronSource,
    runtime::Runtime,
};
use subnet::Netuid;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// It is there, and as it should be.
    Fine,
    /// It is not, and something else stands in.
    Degrades,
    /// Without it the validator does not work.
    Stops,
}

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Such as `SubtensorModule.Tempo`.
    pub item: String,
    pub impact: Impact,
    /// What is wrong with it, and what follows.
    pub text: String,
}

/// Reads a value as its users do.
type Read = fn(&Value) -> Result<(), DecodeError>;

/// A storage item, how its keys are made, how its default reads, and what follows from its absence:
/// `None` is that nothing works.
type Wanted = (&'static str, &'static str, Keys, Read, Option<&'static str>);

#[derive(Debug, Clone, Copy)]
enum Keys {
    None,
    Netuid,
    /// A netuid (or the index of a mechanism) and a uid.
    Uid,
    NetuidHotkey,
    HotkeyNetuid,
    Hotkey,
}

const STORAGE: [Wanted; 33] = [
    (PALLET, "NetworksAdded", Keys::Netuid, flag, None),
    (PALLET, "Tempo", Keys::Netuid, number, None),
    (PALLET, "WeightsSetRateLimit", Keys::Netuid, number, None),
    (PALLET, "WeightsVersionKey", Keys::Netuid, number, None),
    (PALLET, "MinAllowedWeights", Keys::Netuid, number, None),
    (PALLET, "LastUpdate", Keys::Netuid, list, None),
    (PALLET, "Weights", Keys::Uid, list, None),
    ("Commitments", "CommitmentOf", Keys::NetuidHotkey, any, None),
    ("System", "Events", Keys::None, list, None),
    (
        PALLET,
        "MaxWeightsLimit",
        Keys::Netuid,
        number,
        Some("no limit is assumed"),
    ),
    (
        PALLET,
        "CommitRevealWeightsEnabled",
        Keys::Netuid,
        flag,
        Some("weights are set in the clear"),
    ),
    (
        PALLET,
        "RevealPeriodEpochs",
        Keys::Netuid,
        number,
        Some("one epoch is assumed"),
    ),
    (
        PALLET,
        "CommitRevealWeightsVersion",
        Keys::None,
        number,
        Some("version 4 is written"),
    ),
    (
        PALLET,
        "ActivityCutoffFactorMilli",
        Keys::Netuid,
        number,
        Some("ActivityCutoff is read"),
    ),
    (
        PALLET,
        "ActivityCutoff",
        Keys::Netuid,
        number,
        Some("the factor of the tempo is read"),
    ),
    (
        PALLET,
        "SubnetEpochConsensus",
        Keys::Netuid,
        any,
        Some("Yuma consensus is assumed"),
    ),
    (
        PALLET,
        "NetworkRegisteredAt",
        Keys::Netuid,
        number,
        Some("a netuid that changed hands is known by its owner only"),
    ),
    (
        PALLET,
        "SubnetOwner",
        Keys::Netuid,
        account,
        Some("a netuid that changed hands is known by its registration only"),
    ),
    (
        PALLET,
        "SubnetOwnerHotkey",
        Keys::Netuid,
        account,
        Some("the owner's exemptions are not known"),
    ),
    (
        PALLET,
        "ImmunityPeriod",
        Keys::Netuid,
        number,
        Some("shown as 0"),
    ),
    (
        PALLET,
        "MaxAllowedUids",
        Keys::Netuid,
        number,
        Some("256 are assumed"),
    ),
    (
        PALLET,
        "MechanismCountCurrent",
        Keys::Netuid,
        number,
        Some("one mechanism is assumed"),
    ),
    (
        PALLET,
        "StakeThreshold",
        Keys::None,
        number,
        Some("no threshold is assumed"),
    ),
    (
        PALLET,
        "LastEpochBlock",
        Keys::Netuid,
        number,
        Some("epochs are computed from the block number"),
    ),
    (
        PALLET,
        "PendingEpochAt",
        Keys::Netuid,
        number,
        Some("epochs ordered by the owner are not seen"),
    ),
    (
        PALLET,
        "SubnetEpochIndex",
        Keys::Netuid,
        number,
        Some("epochs are computed from the block number"),
    ),
    (
        PALLET,
        "BlocksSinceLastStep",
        Keys::Netuid,
        number,
        Some("epochs may be a few blocks off"),
    ),
    (
        PALLET,
        "TimelockedWeightCommits",
        Keys::Uid,
        list,
        Some("commits are not counted before they are sent"),
    ),
    (
        PALLET,
        "TotalHotkeyAlpha",
        Keys::HotkeyNetuid,
        number,
        Some("without the runtime APIs, stake is TotalHotkeyStake"),
    ),
    (
        PALLET,
        "Owner",
        Keys::Hotkey,
        account,
        Some("coldkeys come from the runtime APIs only"),
    ),
    (
        "Timestamp",
        "Now",
        Keys::None,
        number,
        Some("this machine's clock is taken"),
    ),
    (
        "Drand",
        "BeaconConfig",
        Keys::None,
        any,
        Some("quicknet's key is taken"),
    ),
    (
        "SafeMode",
        "EnteredUntil",
        Keys::None,
        any,
        Some("safe mode is not seen"),
    ),
];

/// Calls of which one is enough, and what follows if none is there.
const CALLS: [(&str, &[&str], Impact, &str); 2] = [
    (
        "weights in the clear",
        &["set_weights", "set_mechanism_weights"],
        Impact::Stops,
        "no weights can be set",
    ),
    (
        "committed weights",
        &[
            "commit_timelocked_weights",
            "commit_timelocked_mechanism_weights",
            "commit_crv3_mechanism_weights",
            "commit_crv3_weights",
        ],
        Impact::Degrades,
        "on subnets with commit-reveal no weights can be set",
    ),
];

/// Looks for everything that this version uses.
pub fn examine(runtime: &Arc<Runtime>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = STORAGE
        .iter()
        .map(|wanted| storage(runtime, wanted))
        .collect();
    findings.extend(CALLS.map(|(item, names, without, follows)| {
        let found = names.iter().find(|name| runtime.has_call(PALLET, name));
        match found {
            Some(name) => finding(item, Impact::Fine, format!("by {PALLET}.{name}")),
            None => {
                let text = format!("there is no call {}: {follows}", names.join(" or "));
                finding(item, without, text)
            }
        }
    }));
    findings.push(neurons(runtime));
    findings.push(nonce(runtime));
    findings.push(match runtime.check_extensions() {
        Ok(()) => finding("transaction extensions", Impact::Fine, "all are known"),
        Err(error) => {
            let text = format!(
                "{}: no weights can be set",
                shared::causes::one_line(&error)
            );
            finding("transaction extensions", Impact::Stops, text)
        }
    });
    findings
}

fn finding(item: impl Into<String>, impact: Impact, text: impl Into<String>) -> Finding {
    Finding {
        item: item.into(),
        impact,
        text: text.into(),
    }
}

fn storage(runtime: &Arc<Runtime>, (pallet, item, keys, read, fallback): &Wanted) -> Finding {
    let name = format!("{pallet}.{item}");
    let netuid = || argument(Netuid(6));
    let hotkey = || Argument::from_bytes([7; 32]);
    let keys = match keys {
        Keys::None => vec![],
        Keys::Netuid => vec![netuid()],
        Keys::Uid => vec![netuid(), Argument::u128(3)],
        Keys::NetuidHotkey => vec![netuid(), hotkey()],
        Keys::HotkeyNetuid => vec![hotkey(), netuid()],
        Keys::Hotkey => vec![hotkey()],
    };
    if !runtime.has_storage(pallet, item) {
        return match fallback {
            Some(follows) => finding(name, Impact::Degrades, format!("is not there: {follows}")),
            None => finding(name, Impact::Stops, "is not there"),
        };
    }
    let tried = runtime.storage_key(pallet, item, keys).and_then(|key| {
        let value = runtime.storage_value(&key, None)?;
        match value.filter(|value| !value.is_unit()).as_ref().map(read) {
            Some(Err(error)) => Err(runtime.decode_error(name.clone(), error)),
            _ => Ok(()),
        }
    });
    match tried {
        Ok(()) => finding(name, Impact::Fine, "is there"),
        // What is there in another form is no absence: reading it fails.
        Err(error) => finding(name, Impact::Stops, shared::causes::one_line(&error)),
    }
}

fn neurons(runtime: &Runtime) -> Finding {
    const ITEM: &str = "neurons";
    let columns = [
        "Keys",
        "SubnetworkN",
        "ValidatorPermit",
        "BlockAtRegistration",
    ];
    let by_storage = columns
        .iter()
        .all(|column| runtime.has_storage(PALLET, column));
    match NeuronSource::ALL
        .into_iter()
        .find(|source| source.is_in(runtime))
    {
        Some(NeuronSource::Selective) => finding(ITEM, Impact::Fine, "by get_selective_metagraph"),
        Some(NeuronSource::Full) => {
            let text = "by get_metagraph: more bytes for each snapshot";
            finding(ITEM, Impact::Degrades, text)
        }
        _ if by_storage => {
            let text = "by storage, column by column: more requests for each snapshot";
            finding(ITEM, Impact::Degrades, text)
        }
        _ => finding(ITEM, Impact::Stops, "no way to read them is left"),
    }
}

fn nonce(runtime: &Arc<Runtime>) -> Finding {
    const ITEM: &str = "AccountNonceApi.account_nonce";
    let account = vec![Argument::from_bytes([7; 32])];
    match runtime.api_call("AccountNonceApi", "account_nonce", account) {
        Ok(_) => finding(ITEM, Impact::Fine, "is there"),
        Err(error) => finding(ITEM, Impact::Stops, shared::causes::one_line(&error)),
    }
}

fn number(value: &Value) -> Result<(), DecodeError> {
    value.uint::<u128>().map(drop)
}

fn flag(value: &Value) -> Result<(), DecodeError> {
    value.bool().map(drop)
}

fn list(value: &Value) -> Result<(), DecodeError> {
    value.list().map(drop)
}

fn account(value: &Value) -> Result<(), DecodeError> {
    value.account().map(drop)
}

fn any(_: &Value) -> Result<(), DecodeError> {
    Ok(())
}

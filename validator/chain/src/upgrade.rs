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
pub struct RuntimeFinding {
    /// Such as `SubtensorModule.Tempo`.
    pub item: String,
    pub impact: Impact,
    /// What is wrong with it, and what follows.
    pub text: String,
}

/// Reads a value as its users do.
type Read = fn(&Value) -> Result<(), DecodeError>;

/// A storage item, how its keys are made, how its default reads (where that matters), and what
/// follows from its absence: `None` is that nothing works.
type Wanted = (
    &'static str,
    &'static str,
    KeyShape,
    Option<Read>,
    Option<&'static str>,
);

#[derive(Debug, Clone, Copy)]
enum KeyShape {
    None,
    Netuid,
    /// A netuid (or the index of a mechanism) and a uid.
    Uid,
    NetuidHotkey,
    HotkeyNetuid,
    Hotkey,
}

const STORAGE: [Wanted; 33] = [
    (PALLET, "NetworksAdded", KeyShape::Netuid, Some(flag), None),
    (PALLET, "Tempo", KeyShape::Netuid, Some(number), None),
    (
        PALLET,
        "WeightsSetRateLimit",
        KeyShape::Netuid,
        Some(number),
        None,
    ),
    (
        PALLET,
        "WeightsVersionKey",
        KeyShape::Netuid,
        Some(number),
        None,
    ),
    (
        PALLET,
        "MinAllowedWeights",
        KeyShape::Netuid,
        Some(number),
        None,
    ),
    (PALLET, "LastUpdate", KeyShape::Netuid, Some(list), None),
    (PALLET, "Weights", KeyShape::Uid, Some(list), None),
    (
        "Commitments",
        "CommitmentOf",
        KeyShape::NetuidHotkey,
        None,
        None,
    ),
    ("System", "Events", KeyShape::None, Some(list), None),
    (
        PALLET,
        "MaxWeightsLimit",
        KeyShape::Netuid,
        Some(number),
        Some("no limit is assumed"),
    ),
    (
        PALLET,
        "CommitRevealWeightsEnabled",
        KeyShape::Netuid,
        Some(flag),
        Some("weights are set in the clear"),
    ),
    (
        PALLET,
        "RevealPeriodEpochs",
        KeyShape::Netuid,
        Some(number),
        Some("one epoch is assumed"),
    ),
    (
        PALLET,
        "CommitRevealWeightsVersion",
        KeyShape::None,
        Some(number),
        Some("version 4 is written"),
    ),
    (
        PALLET,
        "ActivityCutoffFactorMilli",
        KeyShape::Netuid,
        Some(number),
        Some("ActivityCutoff is read"),
    ),
    (
        PALLET,
        "ActivityCutoff",
        KeyShape::Netuid,
        Some(number),
        Some("the factor of the tempo is read"),
    ),
    (
        PALLET,
        "SubnetEpochConsensus",
        KeyShape::Netuid,
        None,
        Some("Yuma consensus is assumed"),
    ),
    (
        PALLET,
        "NetworkRegisteredAt",
        KeyShape::Netuid,
        Some(number),
        Some("a netuid that changed hands is known by its owner only"),
    ),
    (
        PALLET,
        "SubnetOwner",
        KeyShape::Netuid,
        Some(account),
        Some("a netuid that changed hands is known by its registration only"),
    ),
    (
        PALLET,
        "SubnetOwnerHotkey",
        KeyShape::Netuid,
        Some(account),
        Some("the owner's exemptions are not known"),
    ),
    (
        PALLET,
        "ImmunityPeriod",
        KeyShape::Netuid,
        Some(number),
        Some("shown as 0"),
    ),
    (
        PALLET,
        "MaxAllowedUids",
        KeyShape::Netuid,
        Some(number),
        Some("256 are assumed"),
    ),
    (
        PALLET,
        "MechanismCountCurrent",
        KeyShape::Netuid,
        Some(number),
        Some("one mechanism is assumed"),
    ),
    (
        PALLET,
        "StakeThreshold",
        KeyShape::None,
        Some(number),
        Some("no threshold is assumed"),
    ),
    (
        PALLET,
        "LastEpochBlock",
        KeyShape::Netuid,
        Some(number),
        Some("epochs are computed from the block number"),
    ),
    (
        PALLET,
        "PendingEpochAt",
        KeyShape::Netuid,
        Some(number),
        Some("epochs ordered by the owner are not seen"),
    ),
    (
        PALLET,
        "SubnetEpochIndex",
        KeyShape::Netuid,
        Some(number),
        Some("epochs are computed from the block number"),
    ),
    (
        PALLET,
        "BlocksSinceLastStep",
        KeyShape::Netuid,
        Some(number),
        Some("epochs may be a few blocks off"),
    ),
    (
        PALLET,
        "TimelockedWeightCommits",
        KeyShape::Uid,
        Some(list),
        Some("commits are not counted before they are sent"),
    ),
    (
        PALLET,
        "TotalHotkeyAlpha",
        KeyShape::HotkeyNetuid,
        Some(number),
        Some("without the runtime APIs, stake is TotalHotkeyStake"),
    ),
    (
        PALLET,
        "Owner",
        KeyShape::Hotkey,
        Some(account),
        Some("coldkeys come from the runtime APIs only"),
    ),
    (
        "Timestamp",
        "Now",
        KeyShape::None,
        Some(number),
        Some("this machine's clock is taken"),
    ),
    (
        "Drand",
        "BeaconConfig",
        KeyShape::None,
        None,
        Some("quicknet's key is taken"),
    ),
    (
        "SafeMode",
        "EnteredUntil",
        KeyShape::None,
        None,
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
pub fn examine(runtime: &Arc<Runtime>) -> Vec<RuntimeFinding> {
    let mut findings: Vec<RuntimeFinding> = STORAGE
        .iter()
        .map(|wanted| storage(runtime, wanted))
        .collect();
    findings.extend(CALLS.map(|(item, names, without, follows)| {
        let found = names.iter().find(|name| runtime.has_call(PALLET, name));
        if let Some(name) = found {
            finding(item, Impact::Fine, format!("by {PALLET}.{name}"))
        } else {
            let text = format!("there is no call {}: {follows}", names.join(" or "));
            finding(item, without, text)
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

fn finding(item: impl Into<String>, impact: Impact, text: impl Into<String>) -> RuntimeFinding {
    RuntimeFinding {
        item: item.into(),
        impact,
        text: text.into(),
    }
}

fn storage(
    runtime: &Arc<Runtime>,
    (pallet, item, keys, read, fallback): &Wanted,
) -> RuntimeFinding {
    let name = format!("{pallet}.{item}");
    let netuid = || argument(Netuid(6));
    let hotkey = || Argument::from_bytes([7; 32]);
    let keys = match keys {
        KeyShape::None => vec![],
        KeyShape::Netuid => vec![netuid()],
        KeyShape::Uid => vec![netuid(), Argument::u128(3)],
        KeyShape::NetuidHotkey => vec![netuid(), hotkey()],
        KeyShape::HotkeyNetuid => vec![hotkey(), netuid()],
        KeyShape::Hotkey => vec![hotkey()],
    };
    if !runtime.has_storage(pallet, item) {
        return match fallback {
            Some(follows) => finding(name, Impact::Degrades, format!("is not there: {follows}")),
            None => finding(name, Impact::Stops, "is not there"),
        };
    }
    let tried = runtime.storage_key(pallet, item, keys).and_then(|key| {
        let value = runtime.storage_value(&key, None)?;
        let value = value.filter(|value| !value.is_unit());
        match value.as_ref().zip(*read).map(|(value, read)| read(value)) {
            Some(Err(error)) => Err(runtime.decode_error(name.clone(), error)),
            _ => Ok(()),
        }
    });
    match tried {
        Ok(()) => finding(name, Impact::Fine, "is there"),
        // What is there in another form is not absence: reading it fails.
        Err(error) => finding(name, Impact::Stops, shared::causes::one_line(&error)),
    }
}

fn neurons(runtime: &Runtime) -> RuntimeFinding {
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

fn nonce(runtime: &Arc<Runtime>) -> RuntimeFinding {
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

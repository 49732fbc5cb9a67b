//! The metadata: the same names and types as Bittensor's, and what upgrades make of them.

use std::collections::BTreeSet;

use localnet::chain::{Hyperparameters, Upgrade};
use subxt::metadata::{Metadata, PalletMetadata, RuntimeApiMetadata};

use super::{NETUID, full, set_weights, start};

/// Names the folder of real metadata, in which this test reads `finney-spec424.v16.scale`.
const FOLDER: &str = "SUBTENSOR_METADATA_DIR";

/// Pallets which FRAME brings, here in a newer version.
const FRAMES_OWN: [&str; 4] = ["System", "Timestamp", "Balances", "TransactionPayment"];

/// What FRAME has changed since finney's version of it, and what later releases of finney's runtime have
/// that this one lacks. None of it is a matter for a validator but the types of all calls and events,
/// which hold more on finney.
const FRAMES_NEWER: [&str; 18] = [
    "Balances.Freezes",
    "Balances.Holds",
    "Balances.Reserves",
    "BlockBuilder.apply_extrinsic",
    "BlockBuilder.check_inherents",
    "BlockBuilder.inherent_extrinsics",
    "Core.execute_block",
    "SubtensorModule.ActivityCutoffFactorMilli",
    "SubtensorModule.SubnetEpochConsensus",
    "System.BlockSize",
    "System.BlocksTillUpgrade",
    "System.Events",
    "TaggedTransactionQueue.validate_transaction",
    "TransactionPayment.TxPaymentCredit",
    "TransactionPaymentApi.query_fee_details",
    "TransactionPaymentApi.query_info",
    "TransactionPaymentCallApi.query_call_fee_details",
    "TransactionPaymentCallApi.query_call_info",
];

/// Constants whose values a test may want to differ.
const OWN_VALUES: [&str; 2] = ["BlockLength", "BlockWeights"];

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the folder is not part of the project"
)]
async fn names_and_types_are_those_of_finney() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return e2e::skip(&format!("{FOLDER} names no folder of real metadata"));
    };
    let path = std::path::Path::new(&folder).join("finney-spec424.v16.scale");
    let real = Metadata::decode_from(&std::fs::read(path).unwrap()).unwrap();
    let (_chain, client) = start(Hyperparameters::default()).await;
    let ours = client.at_current_block().await.unwrap().metadata();
    let differ: BTreeSet<String> = ours
        .pallets()
        .flat_map(|pallet| compare_pallet(&pallet, &real.pallet_by_name(pallet.name()).unwrap()))
        .chain(ours.runtime_api_traits().flat_map(|api| {
            compare_api(&api, &real.runtime_api_trait_by_name(api.name()).unwrap())
        }))
        .collect();
    assert_eq!(differ, FRAMES_NEWER.map(str::to_owned).into());
    assert_eq!(extensions(&ours), extensions(&real));
}

/// Returns what a pallet of ours has otherwise than the real one: storage, calls and constants by
/// their types, calls, events and errors by their numbers.
fn compare_pallet(ours: &PalletMetadata<'_>, real: &PalletMetadata<'_>) -> Vec<String> {
    assert_eq!(ours.call_index(), real.call_index(), "{}", ours.name());
    let mut differ = Vec::new();
    for entry in ours.storage().map_or(&[][..], |storage| storage.entries()) {
        if ours.storage_hash(entry.name()) != real.storage_hash(entry.name()) {
            differ.push(entry.name());
        }
    }
    for call in ours.call_variants().unwrap_or_default() {
        let other = real.call_variant_by_name(&call.name).unwrap();
        if call.index != other.index || ours.call_hash(&call.name) != real.call_hash(&call.name) {
            differ.push(&call.name);
        }
    }
    for constant in ours
        .constants()
        .filter(|constant| !OWN_VALUES.contains(&constant.name()))
    {
        if ours.constant_hash(constant.name()) != real.constant_hash(constant.name()) {
            differ.push(constant.name());
        }
    }
    if !FRAMES_OWN.contains(&ours.name()) {
        for event in ours.event_variants().unwrap_or_default() {
            assert_eq!(
                event.name,
                real.event_variant_by_index(event.index).unwrap().name
            );
        }
        for error in ours.error_variants().unwrap_or_default() {
            assert_eq!(
                error.name,
                real.error_variant_by_index(error.index).unwrap().name
            );
        }
    }
    differ
        .into_iter()
        .map(|name| format!("{}.{name}", ours.name()))
        .collect()
}

fn compare_api(ours: &RuntimeApiMetadata<'_>, real: &RuntimeApiMetadata<'_>) -> Vec<String> {
    ours.methods()
        .filter(|method| method.hash() != real.method_by_name(method.name()).unwrap().hash())
        .map(|method| format!("{}.{}", ours.name(), method.name()))
        .collect()
}

fn extensions(metadata: &Metadata) -> Vec<String> {
    metadata
        .extrinsic()
        .transaction_extensions_to_use_for_encoding()
        .map(|extension| extension.identifier().to_owned())
        .collect()
}

fn type_of_netuid(metadata: &Metadata) -> String {
    let pallet = metadata.pallet_by_name("SubtensorModule").unwrap();
    let tempo = pallet.storage().unwrap().entry_by_name("Tempo").unwrap();
    let key = tempo.keys().next().unwrap().key_id;
    format!("{:?}", metadata.types().resolve(key).unwrap().type_def)
}

#[tokio::test]
async fn an_upgrade_shows_newtypes_and_old_blocks_do_not() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let before = client.at_current_block().await.unwrap();
    assert_eq!(before.spec_version(), 424);
    chain
        .upgrade(Upgrade {
            newtypes: true,
            ..Upgrade::default()
        })
        .unwrap();
    let after = client.at_current_block().await.unwrap();
    assert_eq!(after.spec_version(), 425);
    assert!(type_of_netuid(before.metadata_ref()).contains("Primitive"));
    assert!(type_of_netuid(after.metadata_ref()).contains("Composite"));
    let old = client.at_block(1_u32).await.unwrap();
    assert!(type_of_netuid(old.metadata_ref()).contains("Primitive"));

    set_weights(&client, "//Alice", &[2], &[1], 0)
        .await
        .unwrap();
    assert_eq!(chain.neurons(NETUID)[0].weights, [(2, 65_535)]);
}

#[tokio::test]
async fn what_was_signed_for_the_old_version_is_refused() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let before = client.at_current_block().await.unwrap();
    chain.upgrade(Upgrade::default()).unwrap();
    let call = subxt::dynamic::transaction(
        "SubtensorModule",
        "set_weights",
        super::weights_call(NETUID, &[2], &[1], 0),
    );
    let refused = before
        .transactions()
        .sign_and_submit_default(&call, &super::Signer(super::pair("//Alice")))
        .await
        .unwrap_err();
    assert!(full(&refused).contains("bad signature"), "{refused:?}");
    set_weights(&client, "//Alice", &[2], &[1], 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unknown_extension_that_carries_data_can_appear() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain
        .upgrade(Upgrade {
            unknown_extension: true,
            ..Upgrade::default()
        })
        .unwrap();
    let refused = set_weights(&client, "//Alice", &[2], &[1], 0)
        .await
        .unwrap_err();
    assert!(refused.contains("DrandPriority"), "{refused}");
}

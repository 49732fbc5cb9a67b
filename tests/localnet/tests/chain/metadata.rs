//! The metadata: the same names and types as Bittensor's, and what upgrades make of them.

use std::collections::BTreeSet;

use localnet::chain::{Hyperparameters, Upgrade};
use subxt::Metadata;

use super::{NETUID, full, set_weights, start};

/// Names the folder of real metadata, in which this test reads `finney-spec424.v16.scale`.
const FOLDER: &str = "SUBTENSOR_METADATA_DIR";

/// Pallets which FRAME brings, here in a newer version.
const FRAMES_OWN: [&str; 4] = ["System", "Timestamp", "Balances", "TransactionPayment"];

/// What FRAME has changed since finney's version of it. None of it is a matter for a validator but
/// the types of all calls and events, which hold more on finney.
const FRAMES_NEWER: [&str; 16] = [
    "Balances.Freezes",
    "Balances.Holds",
    "Balances.Reserves",
    "BlockBuilder.apply_extrinsic",
    "BlockBuilder.check_inherents",
    "BlockBuilder.inherent_extrinsics",
    "Core.execute_block",
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
        println!("skipped: {FOLDER} names no folder of real metadata");
        return;
    };
    let path = std::path::Path::new(&folder).join("finney-spec424.v16.scale");
    let real = Metadata::decode_from(&std::fs::read(path).unwrap()).unwrap();
    let (_chain, client) = start(Hyperparameters::default()).await;
    let ours = client.at_current_block().await.unwrap().metadata();
    let mut differ = BTreeSet::new();
    let mut compared = 0;
    let mut compare = |name: String, ours: Option<[u8; 32]>, real: Option<[u8; 32]>| {
        compared += 1;
        if ours != real {
            differ.insert(name);
        }
    };
    for pallet in ours.pallets() {
        let name = pallet.name();
        let real = real.pallet_by_name(name).unwrap();
        assert_eq!(pallet.call_index(), real.call_index(), "{name}");
        for entry in pallet
            .storage()
            .map(|storage| storage.entries())
            .unwrap_or_default()
        {
            let entry = entry.name();
            compare(
                format!("{name}.{entry}"),
                pallet.storage_hash(entry),
                real.storage_hash(entry),
            );
        }
        for call in pallet.call_variants().unwrap_or_default() {
            let call = &call.name;
            compare(
                format!("{name}.{call}"),
                pallet.call_hash(call),
                real.call_hash(call),
            );
            let index = |pallet: &subxt::metadata::PalletMetadata<'_>| {
                pallet
                    .call_variant_by_name(call)
                    .map(|variant| variant.index)
            };
            assert_eq!(index(&pallet), index(&real), "{name}.{call}");
        }
        for event in pallet.event_variants().unwrap_or_default() {
            let real = real
                .event_variant_by_index(event.index)
                .map(|real| &real.name);
            assert!(
                Some(&event.name) == real || FRAMES_OWN.contains(&name),
                "{name}: {event:?}"
            );
        }
        for error in pallet.error_variants().unwrap_or_default() {
            let real = real
                .error_variant_by_index(error.index)
                .map(|real| &real.name);
            assert!(
                Some(&error.name) == real || FRAMES_OWN.contains(&name),
                "{name}: {error:?}"
            );
        }
        for constant in pallet
            .constants()
            .filter(|constant| !OWN_VALUES.contains(&constant.name()))
        {
            let (constant, real) = (constant.name(), real.constant_hash(constant.name()));
            compare(
                format!("{name}.{constant}"),
                pallet.constant_hash(constant),
                real,
            );
        }
    }
    for api in ours.runtime_api_traits() {
        let real = real.runtime_api_trait_by_name(api.name()).unwrap();
        for method in api.methods() {
            let real = real
                .method_by_name(method.name())
                .map(|method| method.hash());
            compare(
                format!("{}.{}", api.name(), method.name()),
                Some(method.hash()),
                real,
            );
        }
    }
    assert!(compared > 150, "only {compared} compared");
    assert_eq!(differ, FRAMES_NEWER.map(str::to_owned).into());
    assert_eq!(extensions(&ours), extensions(&real));
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

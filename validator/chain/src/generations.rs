//! Real metadata of several generations of the runtime: every lookup and every encoded call fits.
//! The files are not part of the project; the environment variable `SUBTENSOR_METADATA_DIR` names
//! their folder.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use codec::Encode as _;
use scale_info::TypeDef;
use subxt::{config::substrate::H256, dynamic::Value as Argument};

use super::{
    commitments,
    decode::Value,
    endpoints::Endpoints,
    hyperparameters::{PALLET, argument},
    runtime::Runtime,
    upgrade,
    wallet::Wallet,
    weights::{Emitted, RevealPlan, WeightsRequest, calls, transaction},
};
use subnet::{CommitmentRules, Hotkey, Netuid, Uid};

fn runtimes() -> Vec<(u32, Arc<Runtime>)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "an optional test finds its data so"
    )]
    let Some(folder) = std::env::var_os("SUBTENSOR_METADATA_DIR") else {
        e2e::skip("SUBTENSOR_METADATA_DIR names no folder of runtime metadata");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "scale")
    });
    paths.sort();
    assert!(!paths.is_empty(), "the folder holds no metadata");
    let runtime = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let digits: String = name
            .split("spec")
            .nth(1)
            .unwrap()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let spec = digits.parse().unwrap();
        let genesis = Endpoints::resolve(None, &[]).unwrap().genesis.unwrap();
        (
            spec,
            Arc::new(Runtime::new(spec, 1, genesis, &std::fs::read(path).unwrap()).unwrap()),
        )
    };
    paths.into_iter().map(runtime).collect()
}

#[test]
fn storage_keys_and_defaults_are_found_and_read() {
    for (spec, runtime) in runtimes() {
        let netuid = || vec![argument(Netuid(6))];
        let row = || vec![argument(Netuid(6)), Argument::u128(3)];
        let hotkey = || Argument::from_bytes([7; 32]);
        for (pallet, item, keys) in [
            (PALLET, "NetworksAdded", netuid()),
            (PALLET, "Tempo", netuid()),
            (PALLET, "WeightsSetRateLimit", netuid()),
            (PALLET, "WeightsVersionKey", netuid()),
            (PALLET, "MinAllowedWeights", netuid()),
            (PALLET, "MaxWeightsLimit", netuid()),
            (PALLET, "CommitRevealWeightsEnabled", netuid()),
            (PALLET, "RevealPeriodEpochs", netuid()),
            (PALLET, "ActivityCutoff", netuid()),
            (PALLET, "ImmunityPeriod", netuid()),
            (PALLET, "MaxAllowedUids", netuid()),
            (PALLET, "SubnetOwnerHotkey", netuid()),
            (PALLET, "BlocksSinceLastStep", netuid()),
            (PALLET, "SubnetworkN", netuid()),
            (PALLET, "ValidatorPermit", netuid()),
            (PALLET, "Active", netuid()),
            (PALLET, "Consensus", netuid()),
            (PALLET, "Incentive", netuid()),
            (PALLET, "Dividends", netuid()),
            (PALLET, "Emission", netuid()),
            (PALLET, "LastUpdate", netuid()),
            (PALLET, "Keys", row()),
            (PALLET, "BlockAtRegistration", row()),
            (PALLET, "Weights", row()),
            (PALLET, "Owner", vec![hotkey()]),
            (
                PALLET,
                "TotalHotkeyAlpha",
                vec![hotkey(), argument(Netuid(6))],
            ),
            (PALLET, "StakeThreshold", vec![]),
            ("SafeMode", "EnteredUntil", vec![]),
            ("Timestamp", "Now", vec![]),
            ("Drand", "BeaconConfig", vec![]),
            ("System", "Events", vec![]),
            (
                "Commitments",
                "CommitmentOf",
                vec![argument(Netuid(6)), hotkey()],
            ),
        ] {
            let key = runtime
                .storage_key(pallet, item, keys)
                .unwrap_or_else(|error| panic!("{spec}: {error}"));
            runtime
                .storage_value(&key, None)
                .unwrap_or_else(|error| panic!("{spec}: {error}"));
        }
        let zero = |key| runtime.storage_value(&key, None).unwrap().unwrap();
        let tempo = zero(runtime.storage_key(PALLET, "Tempo", netuid()).unwrap());
        assert_eq!(
            tempo.uint::<u16>().unwrap(),
            if spec == 293 { 10 } else { 360 },
            "{spec}"
        );
        // Blake2_128Concat and Identity: the key's end is the plain key.
        let key = runtime.storage_key(
            PALLET,
            "TotalHotkeyAlpha",
            vec![hotkey(), argument(Netuid(6))],
        );
        assert!(
            key.unwrap()
                .bytes
                .ends_with(&[&[7; 32][..], &[6, 0]].concat()),
            "{spec}"
        );
        assert_eq!(
            runtime.has_storage(PALLET, "LastEpochBlock"),
            spec >= 424,
            "{spec}"
        );
        assert_eq!(
            runtime.has_storage(PALLET, "CommitRevealWeightsVersion"),
            spec >= 365,
            "{spec}"
        );
        assert_eq!(
            runtime.has_api("SubnetInfoRuntimeApi", "get_next_epoch_start_block"),
            spec >= 424
        );
    }
}

#[test]
fn the_gate_lets_every_generation_pass() {
    for (spec, runtime) in runtimes() {
        let stops: Vec<_> = upgrade::examine(&runtime)
            .into_iter()
            .filter(|finding| finding.impact == upgrade::Impact::Stops)
            .collect();
        assert!(stops.is_empty(), "{spec}: {stops:?}");
    }
}

#[test]
fn runtime_apis_take_our_arguments_and_answer_with_our_columns() {
    for (spec, runtime) in runtimes() {
        const API: &str = "SubnetInfoRuntimeApi";
        let columns = Argument::unnamed_composite([5_u128, 52].map(Argument::u128));
        let (_, bytes) = runtime
            .api_call(
                API,
                "get_selective_metagraph",
                vec![argument(Netuid(6)), columns],
            )
            .unwrap();
        assert_eq!(bytes, (6_u16, vec![5_u16, 52]).encode(), "{spec}");
        let account = vec![Argument::from_bytes([7; 32])];
        let (_, bytes) = runtime
            .api_call("AccountNonceApi", "account_nonce", account)
            .unwrap();
        assert_eq!(bytes, [7; 32], "{spec}");
        for method in ["get_metagraph", "get_selective_metagraph"] {
            let fields = columns_of(&runtime, API, method);
            for column in [
                "hotkeys",
                "coldkeys",
                "active",
                "validator_permit",
                "last_update",
                "block_at_registration",
                "emission",
                "total_stake",
                "dividends",
                "incentives",
                "consensus",
            ] {
                assert!(fields.contains(column), "{spec}: {method} has no {column}");
            }
        }
        assert!(
            runtime
                .api_answer(API, "get_metagraph", &[0])
                .unwrap()
                .is_unit(),
            "{spec}"
        );
    }
}

fn columns_of(runtime: &Runtime, api: &str, method: &str) -> BTreeSet<String> {
    let types = runtime.types();
    let TypeDef::Variant(option) = &types
        .resolve(runtime.api_output(api, method).unwrap())
        .unwrap()
        .type_def
    else {
        panic!("{method} gives no option");
    };
    let some = option
        .variants
        .iter()
        .find(|variant| variant.name == "Some")
        .unwrap();
    let TypeDef::Composite(columns) = &types.resolve(some.fields[0].ty.id).unwrap().type_def else {
        panic!("{method} gives no struct");
    };
    columns
        .fields
        .iter()
        .filter_map(|field| field.name.clone())
        .collect()
}

#[test]
fn calls_encode_as_the_runtime_defines_them_and_extensions_are_known() {
    for (spec, runtime) in runtimes() {
        runtime
            .check_extensions()
            .unwrap_or_else(|error| panic!("{spec}: {error}"));
        let wallet = Wallet::from_seed(&[7; 32]);
        let request = WeightsRequest {
            netuid: Netuid(6),
            mechanism: 0,
            weights: Emitted {
                uids: vec![1, 2],
                values: vec![3, 65_535],
            },
            version_key: 27,
            window: std::time::Duration::ZERO,
        };
        let (call, arguments) = calls::plain(&runtime, &request).unwrap();
        let birth = (100, H256([1; 32]));
        let (bytes, _) = transaction::signed(&runtime, birth, 5, call, arguments, &wallet).unwrap();
        let expected = (0_u8, 6_u16, vec![1_u16, 2], vec![3_u16, 65_535], 27_u64).encode();
        assert!(
            bytes.ends_with(&[&[7_u8][..], &expected].concat()),
            "{spec}: {}",
            hex::encode(&bytes)
        );

        let plan = RevealPlan {
            round: 99,
            block: 200,
        };
        let hotkey = wallet.hotkey();
        let (call, arguments) =
            calls::commit(&runtime, &request, &hotkey, plan, Some(4), None).unwrap();
        let expected = if spec == 293 {
            "commit_crv3_weights"
        } else {
            "commit_timelocked_weights"
        };
        assert_eq!(call, expected);
        let (bytes, _) = transaction::signed(&runtime, birth, 5, call, arguments, &wallet).unwrap();
        let tail = if spec == 293 {
            99_u64.encode()
        } else {
            (99_u64, 4_u16).encode()
        };
        assert!(bytes.ends_with(&tail), "{spec}");
    }
}

#[test]
fn commitments_of_every_kind_decode() {
    for (spec, runtime) in runtimes() {
        let keys = vec![argument(Netuid(6)), Argument::from_bytes([7; 32])];
        let key = runtime
            .storage_key("Commitments", "CommitmentOf", keys)
            .unwrap();
        let record = |field: &[u8]| {
            let bytes = [&0_u64.encode(), &41_u32.encode(), &[1 << 2][..], field].concat();
            runtime.storage_value(&key, Some(&bytes)).unwrap().unwrap()
        };
        let parsed = |value: &Value| {
            commitments::parse(Uid(1), Hotkey([7; 32]), value, &CommitmentRules::default()).unwrap()
        };
        let raw = parsed(&record(b"\x0aa:b:c:d:e"));
        assert_eq!(
            (raw.block, raw.payload.as_str()),
            (41, "a:b:c:d:e"),
            "{spec}"
        );
        assert_eq!(raw.model.unwrap().name, "b");
        assert!(parsed(&record(&[1])).model.is_err(), "Raw0");
        assert!(parsed(&record(&[0])).model.is_err(), "None");
        assert!(
            parsed(&record(&[&[130][..], &[b'x'; 32]].concat()))
                .model
                .is_err()
        );
        let timelocked = [&[134][..], &(vec![1_u8, 2], 9_u64).encode()].concat();
        assert!(
            parsed(&record(&timelocked))
                .model
                .unwrap_err()
                .contains("TimelockEncrypted")
        );
        assert!(parsed(&record(&[135])).model.is_err());
        let big = [&[136][..], &b"a:b:c:d:e".to_vec().encode()].concat();
        assert_eq!(parsed(&record(&big)).payload, "a:b:c:d:e", "{spec}");
    }
}

//! Weights and commitments: accepted, and refused for each reason.

use localnet::chain::{BlockMode, Chain, Hyperparameter, Hyperparameters, NeuronConfig, TAO};
use subxt::{
    client::OnlineClientAtBlock,
    config::DefaultExtrinsicParamsBuilder,
    dynamic::{self, Value},
    tx::TransactionStatus,
};

use super::{NETUID, Signer, ask, full, key, pair, set_weights, start, submit, weights_call};

#[tokio::test]
async fn weights_are_stored_max_upscaled_with_their_event_and_block() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let events = set_weights(&client, "//Alice", &[2, 3], &[1, 3], 0)
        .await
        .unwrap();
    let names: Vec<String> = events
        .iter()
        .map(|event| event.unwrap())
        .map(|event| format!("{}::{}", event.pallet_name(), event.event_name()))
        .collect();
    assert!(
        names.contains(&"SubtensorModule::WeightsSet".to_owned()),
        "{names:?}"
    );
    assert!(
        !names.contains(&"Balances::Withdraw".to_owned()),
        "{names:?}"
    );
    let alice = &chain.neurons(NETUID)[0];
    assert_eq!(alice.weights, [(2, 21_845), (3, 65_535)]);
    assert_eq!(alice.last_update, u64::from(chain.block_number()));
}

/// A refusal: what is changed first, what is set by whom, and the words of the error.
struct Refusal {
    setup: fn(&Chain),
    signer: &'static str,
    dests: &'static [u16],
    weights: &'static [u16],
    version: u64,
    error: &'static str,
}

const PLAIN: Refusal = Refusal {
    setup: |_| {},
    signer: "//Alice",
    dests: &[2, 3],
    weights: &[1, 1],
    version: 27,
    error: "",
};

fn set(chain: &Chain, name: Hyperparameter, value: u64) {
    chain.set_hyperparameter(NETUID, name, value).unwrap();
}

/// Every reason, one at a time.
const REFUSALS: [Refusal; 14] = [
    Refusal {
        setup: |chain| set(chain, Hyperparameter::CommitRevealWeightsEnabled, 1),
        error: "CommitRevealEnabled",
        ..PLAIN
    },
    Refusal {
        weights: &[1],
        error: "WeightVecNotEqualSize",
        ..PLAIN
    },
    Refusal {
        dests: &[0, 1, 2, 3, 4],
        weights: &[1; 5],
        error: "UidsLengthExceedUidsInSubNet",
        ..PLAIN
    },
    Refusal {
        signer: "//Ferdie",
        error: "HotKeyNotRegisteredInSubNet",
        ..PLAIN
    },
    Refusal {
        setup: |chain| set(chain, Hyperparameter::StakeThreshold, 3001 * TAO),
        error: "Custom error: 1",
        ..PLAIN
    },
    Refusal {
        setup: |chain| set(chain, Hyperparameter::WeightsVersion, 28),
        error: "IncorrectWeightVersionKey",
        ..PLAIN
    },
    Refusal {
        setup: |chain| {
            chain
                .set_weights(NETUID, &pair("//Alice"), &[(2, 1)], 27)
                .unwrap();
        },
        error: "Custom error: 6",
        ..PLAIN
    },
    Refusal {
        signer: "//Charlie",
        error: "NeuronNoValidatorPermit",
        ..PLAIN
    },
    Refusal {
        dests: &[2, 2],
        error: "DuplicateUids",
        ..PLAIN
    },
    Refusal {
        dests: &[2, 4],
        error: "UidVecContainInvalidOne",
        ..PLAIN
    },
    Refusal {
        setup: |chain| set(chain, Hyperparameter::MinAllowedWeights, 3),
        error: "WeightVecLengthIsLow",
        ..PLAIN
    },
    Refusal {
        setup: |chain| set(chain, Hyperparameter::MaxWeightsLimit, 32_767),
        error: "MaxWeightExceeded",
        ..PLAIN
    },
    Refusal {
        setup: |chain| chain.set_safe_mode(true).unwrap(),
        error: "CallFiltered",
        ..PLAIN
    },
    Refusal {
        setup: |chain| chain.fail_submissions(9, 1),
        error: "Custom error: 9",
        ..PLAIN
    },
];

#[tokio::test]
async fn each_refusal_has_its_name() {
    for Refusal {
        setup,
        signer,
        dests,
        weights,
        version,
        error,
    } in REFUSALS
    {
        let (chain, client) = start(Hyperparameters::default()).await;
        setup(&chain);
        let refused = set_weights(&client, signer, dests, weights, version)
            .await
            .unwrap_err();
        assert!(refused.contains(error), "{error} expected, not: {refused}");
        chain.stop().await;
    }
}

#[tokio::test]
async fn refusals_come_in_order() {
    let (chain, client) = start(Hyperparameters::default()).await;
    // Too many, unequal and a wrong version: the first in Bittensor's order is told.
    set(&chain, Hyperparameter::WeightsVersion, 28);
    let refused = set_weights(&client, "//Charlie", &[0; 5], &[1; 4], 1)
        .await
        .unwrap_err();
    assert!(refused.contains("WeightVecNotEqualSize"), "{refused}");
    let refused = set_weights(&client, "//Charlie", &[2, 2], &[1; 2], 1)
        .await
        .unwrap_err();
    assert!(refused.contains("IncorrectWeightVersionKey"), "{refused}");
    let refused = set_weights(&client, "//Charlie", &[2, 2], &[1; 2], 28)
        .await
        .unwrap_err();
    assert!(refused.contains("NeuronNoValidatorPermit"), "{refused}");
}

#[tokio::test]
async fn the_rate_limit_counts_from_registration_and_ends_to_the_block() {
    let hyperparameters = Hyperparameters {
        weights_rate_limit: 5,
        ..Hyperparameters::default()
    };
    let (chain, client) = start(hyperparameters).await;
    let ferdie = NeuronConfig::validator(key("//Ferdie"), 10 * TAO);
    let uid = chain.register(NETUID, ferdie).unwrap();
    let registered = u64::from(chain.block_number());
    assert_eq!(
        chain.neurons(NETUID)[usize::from(uid)].last_update,
        registered
    );
    // The pool judges by the newest block, so block 5 after registration admits what block 6 has.
    for _ in 0..4 {
        let refused = set_weights(&client, "//Ferdie", &[2], &[1], 0)
            .await
            .unwrap_err();
        assert!(refused.contains("Custom error: 6"), "{refused}");
        chain.produce_blocks(1).await.unwrap();
    }
    chain.produce_blocks(1).await.unwrap();
    set_weights(&client, "//Ferdie", &[2], &[1], 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_weight_on_oneself_is_spared_permit_and_length() {
    let hyperparameters = Hyperparameters {
        min_allowed_weights: 3,
        max_weights_limit: 9,
        ..Hyperparameters::default()
    };
    let (chain, client) = start(hyperparameters).await;
    set_weights(&client, "//Charlie", &[2], &[1], 0)
        .await
        .unwrap();
    assert_eq!(chain.neurons(NETUID)[2].weights, [(2, 65_535)]);
}

#[tokio::test]
async fn mechanisms_have_weights_of_their_own() {
    let hyperparameters = Hyperparameters {
        mechanism_count: 2,
        ..Hyperparameters::default()
    };
    let (_chain, client) = start(hyperparameters).await;
    let mut arguments = weights_call(NETUID, &[3], &[7], 0);
    arguments.insert(1, Value::u128(1));
    submit(
        &client,
        "SubtensorModule",
        "set_mechanism_weights",
        arguments.clone(),
        "//Alice",
    )
    .await
    .unwrap();
    let at = client.at_current_block().await.unwrap();
    let weights = dynamic::storage::<(u16, u16), Vec<(u16, u16)>>("SubtensorModule", "Weights");
    let stored = at
        .storage()
        .fetch(&weights, (4096 + NETUID, 0))
        .await
        .unwrap();
    assert_eq!(stored.decode().unwrap(), [(3, 65_535)]);
    arguments[1] = Value::u128(2);
    let refused = submit(
        &client,
        "SubtensorModule",
        "set_mechanism_weights",
        arguments,
        "//Alice",
    )
    .await;
    assert!(refused.unwrap_err().contains("MechanismDoesNotExist"));
}

#[tokio::test]
async fn nonces_signatures_and_eras_are_checked() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain.set_block_mode(BlockMode::Manual);
    let at = client.at_current_block().await.unwrap();
    let signed = signed(&at, 0).await;

    let mut forged = signed.clone();
    forged[40] ^= 1;
    let refused = at
        .transactions()
        .from_bytes(forged)
        .submit()
        .await
        .unwrap_err();
    assert!(full(&refused).contains("bad signature"), "{refused:?}");

    at.transactions()
        .from_bytes(signed.clone())
        .submit()
        .await
        .unwrap();
    let again = at
        .transactions()
        .from_bytes(signed.clone())
        .submit()
        .await
        .unwrap_err();
    assert!(full(&again).contains("1013"), "{again:?}");
    let rival = rival(&at).await;
    let refused = at
        .transactions()
        .from_bytes(rival)
        .submit()
        .await
        .unwrap_err();
    assert!(
        full(&refused).contains("Priority is too low: (1 vs 1)"),
        "{refused:?}"
    );

    chain.produce_blocks(1).await.unwrap();
    let stale = at
        .transactions()
        .from_bytes(signed)
        .submit()
        .await
        .unwrap_err();
    assert!(full(&stale).contains("temporarily banned"), "{stale:?}");
    let at = client.at_current_block().await.unwrap();
    let stale = at
        .transactions()
        .from_bytes(self::rival(&at).await)
        .submit()
        .await
        .unwrap_err();
    assert!(
        full(&stale).contains("Transaction is outdated"),
        "{stale:?}"
    );

    let mortal = self::signed(&at, 1).await;
    chain.produce_blocks(40).await.unwrap();
    let expired = at
        .transactions()
        .from_bytes(mortal)
        .submit()
        .await
        .unwrap_err();
    assert!(full(&expired).contains("1010"), "{expired:?}");
}

#[tokio::test]
async fn a_later_nonce_waits_for_the_earlier_or_until_its_era_ends() {
    let (chain, client) = start(Hyperparameters {
        weights_rate_limit: 0,
        ..Hyperparameters::default()
    })
    .await;
    chain.set_block_mode(BlockMode::Manual);
    let at = client.at_current_block().await.unwrap();
    // subxt would wait for a first status that it knows, which `future` is not.
    let second = format!("0x{}", hex::encode(signed(&at, 1).await));
    ask(
        &chain,
        "author_submitExtrinsic",
        serde_json::json!([second]),
    )
    .await;
    chain.produce_blocks(1).await.unwrap();
    assert!(chain.neurons(NETUID)[0].weights.is_empty());
    let first = rival(&at).await;
    at.transactions().from_bytes(first).submit().await.unwrap();
    chain.produce_blocks(1).await.unwrap();
    assert_eq!(chain.neurons(NETUID)[0].weights, [(2, 65_535)]);

    let at = client.at_current_block().await.unwrap();
    let orphan = at.transactions().from_bytes(signed(&at, 5).await);
    let mut progress = orphan.submit_and_watch().await.unwrap();
    chain.produce_blocks(40).await.unwrap();
    loop {
        match progress.next().await.unwrap() {
            Ok(TransactionStatus::Invalid { .. }) => break,
            Ok(TransactionStatus::InBestBlock(_)) => panic!("its turn never came"),
            _ => {}
        }
    }
}

type At = OnlineClientAtBlock<subxt::PolkadotConfig>;

/// An extrinsic of Alice's that lives for 32 blocks.
async fn signed(at: &At, nonce: u64) -> Vec<u8> {
    sign(at, nonce, &[2]).await
}

/// Another one, with the first nonce.
async fn rival(at: &At) -> Vec<u8> {
    sign(at, 0, &[3]).await
}

async fn sign(at: &At, nonce: u64, dests: &[u16]) -> Vec<u8> {
    let call = dynamic::transaction(
        "SubtensorModule",
        "set_weights",
        weights_call(NETUID, dests, &[1], 0),
    );
    let params = DefaultExtrinsicParamsBuilder::new()
        .nonce(nonce)
        .mortal(32)
        .build();
    let mut transactions = at.transactions();
    transactions
        .create_signed(&call, &Signer(pair("//Alice")), params)
        .await
        .unwrap()
        .into_encoded()
}

#[tokio::test]
async fn calls_that_cost_need_a_balance() {
    let (_chain, client) = start(Hyperparameters::default()).await;
    let arguments = vec![Value::from_bytes([1, 2, 3])];
    let refused = submit(&client, "System", "remark", arguments, "//Alice")
        .await
        .unwrap_err();
    assert!(refused.contains("Inability to pay some fees"), "{refused}");
}

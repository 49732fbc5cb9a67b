//! Commitments: kept, limited, and outliving their neurons.

use localnet::chain::{Chain, Hyperparameters};
use scale_decode::DecodeAsType;
use subxt::dynamic::{self, Value};

use super::{NETUID, config, key, pair, start, submit};

#[derive(DecodeAsType, Debug)]
struct Record {
    deposit: u64,
    block: u32,
    info: Value,
}

#[tokio::test]
async fn a_commitment_round_trips_and_has_its_limits() {
    let (chain, client) = start(Hyperparameters::default()).await;
    let text = "someone:model:0123456789abcdef:hash:1";
    let commit = |text: &str, times: u128| {
        let raw = Value::unnamed_variant(
            format!("Raw{}", text.len()),
            [Value::from_bytes(text.as_bytes())],
        );
        let fields = (0..times).map(|_| raw.clone());
        vec![
            Value::u128(NETUID.into()),
            Value::named_composite([("fields", Value::unnamed_composite(fields))]),
        ]
    };
    submit(
        &client,
        "Commitments",
        "set_commitment",
        commit(text, 1),
        "//Charlie",
    )
    .await
    .unwrap();
    let records = dynamic::storage::<(u16, [u8; 32]), Record>("Commitments", "CommitmentOf");
    let at = client.at_current_block().await.unwrap();
    let record = at
        .storage()
        .fetch(&records, (NETUID, key("//Charlie")))
        .await
        .unwrap();
    let record = record.decode().unwrap();
    assert_eq!((record.deposit, record.block), (0, chain.block_number()));
    assert!(record.info.to_string().contains("Raw37"), "{}", record.info);

    let refused = submit(
        &client,
        "Commitments",
        "set_commitment",
        commit(text, 1),
        "//Ferdie",
    );
    assert!(
        refused
            .await
            .unwrap_err()
            .contains("AccountNotAllowedCommit")
    );
    // 3,100 bytes in an epoch, 384 in each of these.
    let long = "x".repeat(128);
    for _ in 0..7 {
        let call = commit(&long, 3);
        submit(&client, "Commitments", "set_commitment", call, "//Charlie")
            .await
            .unwrap();
    }
    let refused = submit(
        &client,
        "Commitments",
        "set_commitment",
        commit(&long, 3),
        "//Charlie",
    );
    assert!(refused.await.unwrap_err().contains("SpaceLimitExceeded"));
}

#[tokio::test]
async fn a_commitment_can_be_the_first_extrinsic_of_all() {
    let chain = Chain::start(config(Hyperparameters::default()))
        .await
        .unwrap();
    chain.commit(NETUID, &pair("//Charlie"), b"first").unwrap();
    chain
        .set_weights(NETUID, &pair("//Alice"), &[(2, 1)], 0)
        .unwrap();
    assert_eq!(chain.block_number(), 2);
}

#[tokio::test]
async fn commitments_outlive_their_neurons() {
    let (chain, client) = start(Hyperparameters::default()).await;
    chain
        .commit(NETUID, &pair("//Charlie"), &[b'x'; 200])
        .unwrap();
    chain.deregister(NETUID, 2).unwrap();
    assert_ne!(chain.neurons(NETUID)[2].hotkey, key("//Charlie"));
    let records = dynamic::storage::<(u16, [u8; 32]), Record>("Commitments", "CommitmentOf");
    let at = client.at_current_block().await.unwrap();
    let record = at
        .storage()
        .fetch(&records, (NETUID, key("//Charlie")))
        .await
        .unwrap();
    assert!(record.decode().unwrap().info.to_string().contains("BigRaw"));
}

//! Epochs and registrations: who is paid, and who goes.

use localnet::chain::{Hyperparameters, NeuronConfig};
use subxt::dynamic;

use super::{Client, NETUID, key, set_weights, start};

#[tokio::test]
async fn an_epoch_turns_weights_into_incentive() {
    let (chain, client) = start(Hyperparameters::default()).await;
    set_weights(&client, "//Alice", &[2, 3], &[1, 3], 0)
        .await
        .unwrap();
    set_weights(&client, "//Bob", &[2, 3], &[1, 0], 0)
        .await
        .unwrap();
    let next = next_epoch(&client).await;
    assert_eq!(next, 20);
    chain
        .produce_blocks(next as u32 - chain.block_number())
        .await
        .unwrap();
    let incentives: Vec<u16> = chain
        .neurons(NETUID)
        .iter()
        .map(|neuron| neuron.incentive)
        .collect();
    // Bob's minority is clipped to what Alice gives: 1/4 of all the stake for one, 3/4 of hers for
    // the other.
    assert_eq!(incentives, [0, 0, 20_164, 45_370]);
    assert_eq!(next_epoch(&client).await, 40);
    let permits: Vec<bool> = chain
        .neurons(NETUID)
        .iter()
        .map(|neuron| neuron.validator_permit)
        .collect();
    assert_eq!(permits, [true, true, false, false]);
}

async fn next_epoch(client: &Client) -> u64 {
    let call = dynamic::runtime_api_call::<_, Option<u64>>(
        "SubnetInfoRuntimeApi",
        "get_next_epoch_start_block",
        (NETUID,),
    );
    let at = client.at_current_block().await.unwrap();
    at.runtime_apis().call(call).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_full_subnet_replaces_its_least_paid() {
    let hyperparameters = Hyperparameters {
        max_uids: 4,
        immunity_period: 10,
        ..Hyperparameters::default()
    };
    let (chain, _client) = start(hyperparameters).await;
    let newcomer = NeuronConfig::miner(key("//Ferdie"));
    let refused = chain.register(NETUID, newcomer.clone()).unwrap_err();
    assert!(
        refused.to_string().contains("NoNeuronIdAvailable"),
        "{refused}"
    );
    chain.produce_blocks(10).await.unwrap();
    assert_eq!(chain.register(NETUID, newcomer.clone()).unwrap(), 0);
    let refused = chain.register(NETUID, newcomer).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("HotKeyAlreadyRegisteredInSubNet"),
        "{refused}"
    );
}

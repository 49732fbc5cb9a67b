//! Whose netuid it is, and whose place on it: a validator does nothing on a subnet that is not the
//! one that is meant.

use std::time::Duration;

use localnet::chain::{NeuronConfig, SubnetConfig, TAO};
use report::status::Cause;
use subnet::Uid;

use crate::world::{World, stop};

fn raised(world: &World, cause: Cause) -> bool {
    let status = world.status("a");
    status.is_some_and(|status| status.details.alarms.contains_key(&cause))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_file_refuses_a_netuid_of_somebody_else() {
    let world = World::start("identity", Duration::from_millis(300)).await;
    assert_eq!(world.net.netuid, 6, "the netuid of the default file");
    let owner = SubnetConfig {
        netuid: 6,
        owner_hotkey: Some([9; 32]),
        neurons: vec![NeuronConfig::validator(
            world.net.validator.hotkey.public(),
            5_000 * TAO,
        )],
        ..SubnetConfig::default()
    };
    world.net.chain.register_anew(owner).unwrap();
    let mut command = world.command("a");
    command
        .env_remove("VALIDATOR_SUBNET")
        .args(["run", "--device", "cpu", "--dtype", "float32"]);
    let (code, text) = World::ended(command).await;
    assert_eq!(code, 78, "{text}");
    for told in [
        "netuid 6 belongs to somebody else",
        "registered by block 2225782",
        "--subnet FILE",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let (_, weights) = world.weights();
    assert!(weights.is_empty());
    let mut check = world.command("a");
    check
        .env_remove("VALIDATOR_SUBNET")
        .args(["check", "--device", "cpu", "--min-free", "1MB"]);
    let (code, text) = World::ended(check).await;
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("FAIL subnet"), "{text}");
    assert!(
        text.contains("no neuron of subnet 6 committed a model of l3, s1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_netuid_that_changes_hands_and_a_lost_place_stop_evaluation_and_weights() {
    let world = World::start("changed-hands", Duration::from_millis(300)).await;
    let mut validator = world.running("a", &["--sync-blocks", "1"]);
    world
        .until("a", "weights", || !world.weights().1.is_empty())
        .await;
    let uid = || world.status("a").and_then(|status| status.details.uid);
    assert_eq!(uid(), Some(Uid(0)));
    let (chain, netuid) = (&world.net.chain, world.net.netuid);
    chain.deregister(netuid, 0).unwrap();
    world
        .until("a", "the lost place told", || {
            raised(&world, Cause::Registration)
        })
        .await;
    assert_eq!(uid(), None);
    let hotkey = world.net.validator.hotkey.public();
    let ours = NeuronConfig::validator(hotkey, 5_000 * TAO);
    let new = chain.register(netuid, ours.clone()).unwrap();
    world
        .until("a", "the new place", || uid() == Some(Uid(new)))
        .await;
    assert!(!raised(&world, Cause::Registration));
    let weights = || {
        let neurons = chain.neurons(netuid);
        let ours = neurons.iter().find(|neuron| neuron.hotkey == hotkey);
        ours.map_or_else(Vec::new, |neuron| neuron.weights.clone())
    };
    world
        .until("a", "weights from the new place", || !weights().is_empty())
        .await;

    let stranger = SubnetConfig {
        netuid,
        owner_hotkey: Some([9; 32]),
        neurons: vec![ours, NeuronConfig::miner([1; 32])],
        ..SubnetConfig::default()
    };
    chain.register_anew(stranger).unwrap();
    world
        .until("a", "the other subnet told", || {
            raised(&world, Cause::Subnet)
        })
        .await;
    let (steps, block) = (world.records("a").len(), world.block());
    world
        .until("a", "twenty more blocks", || world.block() > block + 20)
        .await;
    assert!(
        weights().is_empty(),
        "weights on the subnet of somebody else"
    );
    assert!(
        world.records("a").len() <= steps + 1,
        "at most the step under way"
    );
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("belongs to somebody else"), "{text}");
    assert_eq!(stop(&mut validator).await, 0);
    // The next start knows as well.
    let (code, text) = world
        .run("a", &["run", "--device", "cpu", "--dtype", "float32"])
        .await;
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("subnet-identity.json"), "{text}");
}

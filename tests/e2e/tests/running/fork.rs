//! A fork that takes our weights back.

use std::time::Duration;

use report::status::Cause;

use crate::world::{World, stop};

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_a_fork_takes_back_are_set_again() {
    let world = World::start("fork", Duration::from_millis(500)).await;
    let chain = &world.net.chain;
    chain.set_finality_lag(1000);
    let mut validator = world.running("a", &["--sync-blocks", "1"]);
    world
        .until("a", "weights on the chain", || {
            !world.weights().1.is_empty()
        })
        .await;
    let (set, _) = world.weights();
    let depth = u64::from(chain.block_number()) - set + 1;
    chain.fork(u32::try_from(depth).unwrap()).unwrap();
    assert_eq!(world.weights().1, [], "the fork took them");
    world
        .until("a", "weights again", || !world.weights().1.is_empty())
        .await;
    let (again, _) = world.weights();
    chain.set_finality_lag(0);
    // Only what stands is taken for set.
    let receipt = || {
        let status = world.status("a")?;
        status.details.receipt.map(|receipt| receipt.block)
    };
    world
        .until("a", "the receipt", || receipt() >= Some(again))
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    // What is gone was ours: nobody else uses the hotkey.
    let alarms = world.status("a").unwrap().details.alarms;
    assert!(!alarms.contains_key(&Cause::Twin), "{alarms:?}");
}

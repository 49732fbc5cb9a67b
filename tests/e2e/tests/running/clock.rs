//! A wall clock that jumps while the validator runs.

use std::time::Duration;

use e2e::wall_clock::WallClock;
use shared::{clock, status::Health};

use crate::{
    gate::Gate,
    outage::assert_unbroken,
    world::{World, stop},
};

const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_an_hour_either_way_costs_no_step_and_no_weights() {
    let world = World::start("clock", Duration::from_millis(300)).await;
    let mut gate = Gate::to(world.net.feed.server.address);
    let source = format!("{}/samples.jsonl", gate.url());
    let folder = tempfile::tempdir().unwrap();
    let clock = WallClock::new(folder.path());
    let mut command = world.command("a");
    command.envs(clock.environment());
    let flags = ["--sync-blocks", "1", "--samples", &source];
    let mut validator = world.logged(command, "a", &flags);
    world
        .until("a", "steps, and weights on the chain", || {
            world.records("a").len() > 1 && !world.weights().1.is_empty()
        })
        .await;

    for offset in [HOUR, -HOUR] {
        let before = world.records("a").len();
        let (mut last, _) = world.weights();
        clock.set(offset);
        for _ in 0..2 {
            world
                .until("a", "the next weights", || world.weights().0 > last)
                .await;
            let (block, _) = world.weights();
            // Ten blocks apart as configured.
            assert!(
                block - last < 20,
                "a window was missed: {last} to {block} after {offset} s"
            );
            last = block;
        }
        world
            .until("a", "steps at the new time", || {
                world.records("a").len() > before + 1
            })
            .await;
        // The validator did see the jump.
        let records = world.records("a");
        let finished = records.last().unwrap().finished_at.as_second();
        let off = finished - clock::now().as_second() - offset;
        assert!(off.abs() < HOUR / 6, "{off} s off after {offset} s");
    }

    // What was fetched before the clock was set back is from the future, and usable.
    clock.set(-2 * HOUR);
    gate.bar().await;
    let ages = || -> Vec<Option<u64>> {
        let records = world.records("a");
        let ages = records.iter().map(|record| record.samples.cached_age);
        ages.collect()
    };
    world
        .until("a", "two steps on cached samples", || {
            let ages = ages();
            ages.len() > 1 && ages[ages.len() - 2..].iter().all(Option::is_some)
        })
        .await;
    assert!(
        ages().iter().flatten().all(|age| *age < 600),
        "{:?}",
        ages()
    );
    gate.open();
    world
        .until("a", "green health", || {
            world.status("a").unwrap().health == Health::Green
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);

    let records = world.records("a");
    let steps: Vec<u64> = records.iter().map(|record| record.step).collect();
    assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>());
    assert!(records.is_sorted_by_key(|record| record.block));
    assert_unbroken(&records);
    let log = world.log_text("a");
    assert!(
        !log.contains("panicked") && !log.contains("bug in"),
        "{log}"
    );
}

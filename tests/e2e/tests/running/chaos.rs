//! Chaos: rounds of something going wrong with validator, worker, chain, hub, samples, disk, clock or network,
//! drawn by a seed; after each round the invariants of the soak hold, and those of the disk at the end.
//!
//! `scripts/chaos` runs many rounds; without its environment these are a few.

use std::{fs, path::PathBuf, time::Duration};

use e2e::{network, wall_clock::WallClock};
use localnet::{
    demo::{CHAIN_TROUBLE, Service, Trouble},
    http::Fault,
};
use models::{
    Store,
    store::{Depth, StoreLimits},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::{
    decay::flip_a_bit,
    plan::{Event, LONGEST_DELAY, Plan, number, others},
    proc::{descendants, workers},
    soak::{Run, TEMPO},
    world::World,
};

/// What is done in a round.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// What the soak does, too.
    Event(Event),
    /// The machine has no network for a while: no packet arrives, no connection ends.
    NoNetwork,
    /// The machine stands still for a while, as a virtual one does when it is moved.
    Freeze,
    /// The wall clock is so many seconds off until the next such blow.
    Clock(i64),
    /// SIGKILL, and one bit of a stored model is another when it starts again.
    FlipBit,
    /// SIGKILL, and this file of the state holds nonsense when it starts again.
    Nonsense(&'static str),
    /// SIGKILL, and this file of the state is cut in half.
    Half(&'static str),
    /// SIGKILL, and what killed writes leave lies about.
    Leftovers,
}

fn blows() -> Vec<Blow> {
    let mut blows: Vec<Blow> = others().into_iter().map(Blow::Event).collect();
    blows.extend([Blow::Event(Event::Kill); 6]);
    let clock = [-7200, -60, 0, 60, 7200].map(Blow::Clock);
    let disk = [
        Blow::FlipBit,
        Blow::FlipBit,
        Blow::Nonsense("tracker.json"),
        Blow::Nonsense("status.json"),
        Blow::Half("tracker.json"),
        Blow::Half("snapshot.json"),
        Blow::Leftovers,
    ];
    blows.extend(clock);
    blows.extend(disk);
    blows.extend([Blow::NoNetwork; 3]);
    blows.extend([Blow::Freeze; 3]);
    blows
}

/// Where the test has no network of its own, everything is cut off at once.
async fn no_network(world: &World, own: bool) {
    if own {
        network::connect(false).unwrap();
    } else {
        let cut = |service| Trouble::Service(service, Fault::Cut);
        let all = [Trouble::ChainCut, cut(Service::Hub), cut(Service::Feed)];
        for trouble in all {
            trouble.set(&world.net);
        }
    }
    // How long the network is away.
    sleep(CHAIN_TROUBLE).await;
    if own {
        network::connect(true).unwrap();
    }
}

async fn freeze(run: &Run<'_>) {
    let validator = run.child.id().unwrap();
    let all = [vec![validator], workers(validator)].concat();
    let tell = |signal| {
        for pid in &all {
            // A worker may have ended by itself.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    };
    tell(Signal::SIGSTOP);
    // How long the machine stands still.
    sleep(CHAIN_TROUBLE).await;
    tell(Signal::SIGCONT);
}

/// What a write leaves that was killed.
fn leftover(world: &World) -> PathBuf {
    world.state("a").join(".tmpKilled")
}

/// What blows are struck with.
struct Tools {
    clock: WallClock,
    own_network: bool,
}

async fn strike(world: &World, run: &mut Run<'_>, tools: &Tools, blow: Blow, chance: u64) {
    let of_state = |name: &str| world.state("a").join(name);
    match blow {
        Blow::Event(event) => return run.suffer(event).await,
        Blow::Clock(offset) => return tools.clock.set(offset),
        Blow::NoNetwork => return no_network(world, tools.own_network).await,
        Blow::Freeze => return freeze(run).await,
        _ => run.child.kill().await.unwrap(),
    }
    match blow {
        Blow::FlipBit => {
            let store = Store::open(&world.store(), StoreLimits::default()).unwrap();
            let models = store.models().unwrap();
            let unlucky = &models[chance as usize % models.len()];
            flip_a_bit(&unlucky.dir.join("model.safetensors"));
        }
        Blow::Nonsense(name) => {
            let nonsense = chance.to_le_bytes().repeat(100);
            shared::file::write_atomic(&of_state(name), &nonsense).unwrap();
        }
        Blow::Half(name) => {
            // Not every state has every file.
            if let Ok(bytes) = fs::read(of_state(name)) {
                let half = &bytes[..bytes.len() / 2];
                shared::file::write_atomic(&of_state(name), half).unwrap();
            }
        }
        Blow::Leftovers => {
            shared::file::write_atomic(&leftover(world), b"half of a fi").unwrap();
        }
        Blow::Event(_) | Blow::Clock(_) | Blow::NoNetwork | Blow::Freeze => {}
    }
    run.respawn();
}

/// In a network of its own, where that is allowed.
#[test]
fn after_each_round_of_chaos_the_invariants_hold() {
    let entered = network::enter();
    if let Err(error) = &entered {
        println!("no network of its own: {error}");
    }
    // Its threads begin after that, so that they are in there, too.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(chaos(entered.is_ok()));
}

async fn chaos(own_network: bool) {
    let plan = Plan {
        seed: number("CHAOS_SEED", 11),
        ..Plan::from_environment()
    };
    let rounds: usize = number("CHAOS_ROUNDS", 6);
    println!("seed {}, {rounds} rounds", plan.seed);
    let mut options = World::options("chaos", plan.block_time);
    options.tempo = TEMPO;
    let world = World::with(options).await;
    let folder = tempfile::tempdir().unwrap();
    let tools = Tools {
        clock: WallClock::new(folder.path()),
        own_network,
    };
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let blows = blows();
    let mut run = Run::start(&world, plan, Some(&tools.clock));
    run.steps(2).await;
    for round in 1..=rounds {
        let blow = *blows.choose(&mut random).unwrap();
        println!("round {round}, {} steps: {blow:?}", run.seen.records.len());
        // Not synchronization: it comes at a moment nobody chose.
        sleep(Duration::from_millis(random.random_range(0..LONGEST_DELAY))).await;
        let from = world.block();
        strike(&world, &mut run, &tools, blow, random.random()).await;
        run.steps(run.seen.records.len() + 1).await;
        run.calm().await;
        run.seen.outages.push(from..world.block());
        run.steps(run.seen.records.len() + 1).await;
        assert_invariants(&world, &mut run, &format!("round {round}: {blow:?}")).await;
    }
    tools.clock.set(0);
    run.steps(run.seen.records.len() + 1).await;
    run.finish().await;
    let store = Store::open(&world.store(), StoreLimits::default()).unwrap();
    let damage = store.check(Depth::Bytes, |_| {}).unwrap();
    // A copy that was struck and not used since is found by the next look at it.
    assert!(damage.len() <= 1, "{damage:?}");
    assert!(!leftover(&world).exists());
}

/// What holds whatever went wrong: see [`crate::soak::Seen::assert_sound`]; and that one validator runs
/// with one worker, says so itself, and has no bug to tell of.
async fn assert_invariants(world: &World, run: &mut Run<'_>, when: &str) {
    println!("{when}");
    run.seen.assert_sound();
    let pid = run.child.id().unwrap();
    world
        .until("a", "a worker, and a status of this validator", || {
            let ours = world.status("a").is_some_and(|status| status.pid == pid);
            ours && workers(pid).len() == 1
        })
        .await;
    let family = descendants(pid);
    assert!(family.len() <= 3, "{when}: {family:?}");
    let log = world.log_text("a");
    let bug = log
        .lines()
        .find(|line| line.contains("panicked") || line.contains("bug in"));
    assert_eq!(bug, None, "{when}");
}

//! The soak: steps with something going wrong every few of them, against an undisturbed run.
//!
//! `scripts/soak` runs a long one; without its environment this is a short test.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use chain::weights::emit;
use e2e::{wait::a_moment, wall_clock::WallClock};
use localnet::{
    chain::BlockMode,
    demo::{CHAIN_TROUBLE, Trouble},
};
use models::{Store, store::StoreLimits};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use report::{
    StepRecord,
    status::{Activity, EndpointStatus, Status},
};
use shared::Exit;
use subnet::Uid;
use tokio::{process::Child, time::sleep};

use crate::{
    plan::{Event, Plan},
    proc::{cpu_time, descendants, resident_kib, workers},
    report::{Memory, Report},
    tail::Tail,
    world::{World, stop},
};

/// No step takes longer, whatever goes wrong.
const PATIENCE: Duration = Duration::from_secs(200);

/// Blocks between weight sets.
const EPOCH: u64 = 10;

/// Long enough that no restart spans one: then the chain's consensus would be fresher than the
/// state, and weights would rightly begin anew.
pub(crate) const TEMPO: u16 = 360;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_the_weights_are_those_of_an_undisturbed_run() {
    let plan = Plan::from_environment();
    println!("{plan:?}");
    let mut options = World::options("soak", plan.block_time);
    options.tempo = TEMPO;
    let world = World::with(options).await;
    let mut run = Run::start(&world, plan, None);
    run.endure().await;
    let disturbed = run.finish().await;
    let undisturbed = undisturbed(&world, plan).await;
    let idle = if plan.idle.is_zero() {
        None
    } else {
        Some(idle(&world, plan.idle).await)
    };
    let report = disturbed.report(&undisturbed, idle);
    println!("{report}");
    if !disturbed.missed_windows().is_empty() {
        println!("{}", world.log_text("a"));
    }
    disturbed.assert_sound();
    assert_equal(&disturbed.records, &undisturbed.records);
    if plan.steps >= 200 {
        assert!(undisturbed.memory.is_flat(), "memory grows: {report}");
    }
}

/// A validator that runs, and what was seen of it.
pub(crate) struct Run<'w> {
    world: &'w World,
    plan: Plan,
    /// The wall clock that it sees, where that is not the right one.
    clock: Option<&'w WallClock>,
    pub(crate) child: Child,
    journal: Tail,
    log: Tail,
    /// When the process was started, until its first evaluation is seen.
    started: Option<Instant>,
    block: u64,
    pub(crate) seen: Seen,
}

/// What was seen of a run.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) records: Vec<StepRecord>,
    /// How often the losses of a model (by content) on a sample set (by step) were recorded.
    recorded: BTreeMap<(u64, String), u32>,
    /// Weight sets: block, uids and weights.
    sets: Vec<(u64, Vec<(u16, u16)>)>,
    /// Blocks in which the validator or the chain was away.
    pub(crate) outages: Vec<Range<u64>>,
    /// How often each event happened.
    events: BTreeMap<String, u32>,
    /// From the start of the process to the first losses.
    restarts: Vec<Duration>,
    memory: Memory,
}

impl<'w> Run<'w> {
    pub(crate) fn start(world: &'w World, plan: Plan, clock: Option<&'w WallClock>) -> Self {
        Self {
            child: spawn(world, plan, clock),
            world,
            plan,
            clock,
            journal: Tail::new(&world.journal("a")),
            log: Tail::new(&world.log("a")),
            started: Some(Instant::now()),
            block: 0,
            seen: Seen::default(),
        }
    }

    /// Lets everything happen that is planned, until all steps are complete and weights are set
    /// after the last.
    async fn endure(&mut self) {
        for planned in self.plan.events() {
            self.steps(planned.step).await;
            // Not synchronization: the event comes at a moment nobody chose.
            sleep(planned.delay).await;
            let name = match planned.event {
                Event::Outside(trouble) => trouble.to_string(),
                event => format!("{event:?}"),
            };
            println!("{:>5} steps: {name}", self.seen.records.len());
            *self.seen.events.entry(name).or_default() += 1;
            let from = self.world.block();
            self.suffer(planned.event).await;
            self.steps(self.seen.records.len() + 1).await;
            self.calm().await;
            self.seen.outages.push(from..self.world.block());
        }
        self.steps(self.plan.steps).await;
        let last = self.world.block();
        while self
            .seen
            .sets
            .last()
            .is_none_or(|(block, _)| *block <= last)
        {
            self.steps(self.seen.records.len() + 1).await;
        }
    }

    /// Ends what may be left of trouble outside.
    pub(crate) async fn calm(&mut self) {
        self.world.net.chain.clear_faults();
        self.world.net.hub.api.faults.clear();
        self.world.net.feed.server.faults.clear();
        self.in_touch().await;
    }

    pub(crate) async fn suffer(&mut self, event: Event) {
        match event {
            Event::Kill => {
                self.child.kill().await.unwrap();
                self.respawn();
            }
            Event::LoseModel => {
                self.child.kill().await.unwrap();
                let store = Store::open(&self.world.store(), StoreLimits::default()).unwrap();
                let models = store.models().unwrap();
                let lost = &models[self.seen.records.len() % models.len()];
                assert!(store.remove_model(&lost.record.content_hash).unwrap());
                self.respawn();
            }
            Event::Drain => {
                let code = stop(&mut self.child).await;
                assert_eq!(code, 0, "{}", self.world.log_text("a"));
                self.respawn();
            }
            Event::KillWorker => {
                for worker in workers(self.child.id().unwrap()) {
                    // It may have ended by itself.
                    let _ = kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL);
                }
            }
            Event::Outside(trouble) => {
                trouble.set(&self.world.net);
                if trouble == Trouble::ChainStall {
                    // How long the chain stands still.
                    sleep(CHAIN_TROUBLE).await;
                }
                trouble.end(&self.world.net);
            }
        }
    }

    /// Kills the validator and starts it again, maybe with one model less on disk.
    pub(crate) fn respawn(&mut self) {
        self.look();
        self.child = spawn(self.world, self.plan, self.clock);
        self.started = Some(Instant::now());
    }

    /// Waits for so many complete steps.
    pub(crate) async fn steps(&mut self, steps: usize) {
        self.until(|run| run.seen.records.len() >= steps).await;
    }

    /// Waits while steps go on.
    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let mut progress = Instant::now();
        let mut before = self.seen.records.len();
        while !holds(self) {
            a_moment().await;
            self.look();
            if self.seen.records.len() > before {
                before = self.seen.records.len();
                progress = Instant::now();
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                // A supervisor would start it again; any other exit is a defect.
                let code = status.code();
                assert_eq!(
                    code,
                    Some(Exit::TryLater as i32),
                    "{}",
                    self.world.log_text("a")
                );
                *self.seen.events.entry("exit 75".to_owned()).or_default() += 1;
                self.respawn();
            }
            assert!(
                progress.elapsed() < PATIENCE,
                "no step for {PATIENCE:?}:\n{}",
                self.world.log_text("a")
            );
        }
    }

    /// Waits until the validator follows the chain: its pause after a refusal is short for blocks
    /// of twelve seconds, and many blocks here.
    async fn in_touch(&mut self) {
        let block = self.world.block();
        // A block that came after the trouble: an earlier one it may have heard of before. New blocks are
        // still told by an endpoint whose pause, after it asked for one, is not over.
        let follows = |status: Status| {
            let healthy = |endpoint: &EndpointStatus| endpoint.problem.is_none();
            status.details.block > Some(block) && status.details.endpoints.iter().all(healthy)
        };
        self.until(|run| run.world.status("a").is_some_and(follows))
            .await;
    }

    /// Takes note of what is new.
    fn look(&mut self) {
        for line in self.log.lines() {
            let Some(key) = recorded(&line) else { continue };
            *self.seen.recorded.entry(key).or_default() += 1;
            if let Some(started) = self.started.take() {
                self.seen.restarts.push(started.elapsed());
            }
        }
        for line in self.journal.lines() {
            self.seen.records.push(serde_json::from_str(&line).unwrap());
        }
        let block = self.world.block();
        if block > self.block {
            self.block = block;
            let set = self.world.weights();
            if !set.1.is_empty() && self.seen.sets.last() != Some(&set) {
                self.seen.sets.push(set);
            }
        }
    }

    pub(crate) async fn finish(mut self) -> Seen {
        assert_eq!(stop(&mut self.child).await, 0);
        self.look();
        self.seen
    }
}

fn spawn(world: &World, plan: Plan, clock: Option<&WallClock>) -> Child {
    let (seed, epoch) = (plan.seed.to_string(), EPOCH.to_string());
    let flags = ["--seed", &seed, "--blocks_per_epoch", &epoch, "--log-json"];
    let mut command = world.command("a");
    command.envs(clock.map(WallClock::environment).into_iter().flatten());
    world.logged(command, "a", &flags)
}

/// Returns step and content of a line that says that losses were recorded.
fn recorded(line: &str) -> Option<(u64, String)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    (value["message"] == "losses recorded").then_some(())?;
    let content = value["content"].as_str()?.to_owned();
    Some((value["step"].as_u64()?, content))
}

/// Runs the same steps in peace.
async fn undisturbed(world: &World, plan: Plan) -> Seen {
    let (seed, steps) = (plan.seed.to_string(), plan.steps.to_string());
    let flags = [
        "--seed",
        &seed,
        "--genesis",
        "--dont_set_weights",
        "--max-steps",
        &steps,
        "--log-json",
    ];
    let mut child = world.running("b", &flags);
    let pid = child.id().unwrap();
    let mut journal = Tail::new(&world.journal("b"));
    let mut seen = Seen::default();
    let mut progress = Instant::now();
    loop {
        let ended = child.try_wait().unwrap();
        for line in journal.lines() {
            seen.records.push(serde_json::from_str(&line).unwrap());
            let below = descendants(pid).into_iter();
            seen.memory
                .note(resident_kib(pid), below.map(resident_kib).sum());
            progress = Instant::now();
        }
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(0), "{}", world.log_text("b"));
            return seen;
        }
        assert!(progress.elapsed() < PATIENCE, "{}", world.log_text("b"));
        a_moment().await;
    }
}

/// Returns the share of one CPU that a validator and its worker use when there is nothing to do,
/// at the real chain's pace.
async fn idle(world: &World, time: Duration) -> f64 {
    let mut child = world.running("b", &["--sync-blocks", "1000000000", "--dont_set_weights"]);
    let pid = child.id().unwrap();
    world
        .until("b", "nothing to do", || {
            world.status("b").is_some_and(|status| {
                status.pid == pid && status.details.activity == Activity::WaitingForNews
            })
        })
        .await;
    world
        .net
        .chain
        .set_block_mode(BlockMode::Every(Duration::from_secs(12)));
    let used = || {
        let below = descendants(pid).into_iter();
        below.chain([pid]).map(cpu_time).sum::<Duration>()
    };
    let before = used();
    // What is measured is its CPU time meanwhile.
    sleep(time).await;
    let share = used().saturating_sub(before).as_secs_f64() / time.as_secs_f64();
    assert_eq!(stop(&mut child).await, 0);
    share
}

impl Seen {
    /// No record is doubled, no recorded loss was computed again, no window was missed, and what is on
    /// the chain is what some step decided. (None is lost: two runs with the same steps show it.)
    pub(crate) fn assert_sound(&self) {
        let steps: Vec<u64> = self.records.iter().map(|record| record.step).collect();
        let rise = steps.is_sorted_by(|before, after| before < after);
        assert!(rise, "a record is doubled: {steps:?}");
        let again: Vec<_> = self.recorded.iter().filter(|(_, n)| **n > 1).collect();
        assert!(
            again.is_empty(),
            "recorded losses were computed again: {again:?}"
        );
        let missed = self.missed_windows();
        assert!(missed.is_empty(), "weight windows were missed: {missed:?}");
        let decided: Vec<Vec<(u16, u16)>> = self.records.iter().map(on_chain).collect();
        for (block, set) in &self.sets {
            assert!(
                decided.contains(set),
                "no step decided what was set at block {block}: {set:?}"
            );
        }
    }

    /// Returns the blocks between sets that lie more than an epoch too far apart, outages apart.
    fn missed_windows(&self) -> Vec<(u64, u64)> {
        let pairs = self.sets.windows(2).map(|pair| (pair[0].0, pair[1].0));
        pairs
            .filter(|(last, next)| self.lateness(*last, *next) >= EPOCH)
            .collect()
    }

    /// Returns by how many blocks a set came late, without those of outages since it was due.
    fn lateness(&self, last: u64, next: u64) -> u64 {
        let due = last + EPOCH;
        let excused = (due..next)
            .filter(|block| self.outages.iter().any(|outage| outage.contains(block)))
            .count();
        next.saturating_sub(due + excused as u64)
    }

    fn report(&self, undisturbed: &Self, idle: Option<f64>) -> Report {
        let pairs = self
            .sets
            .windows(2)
            .map(|pair| self.lateness(pair[0].0, pair[1].0));
        Report {
            steps: self.records.len(),
            events: self.events.clone(),
            sets: self.sets.len(),
            lateness: pairs.collect(),
            missed: self.missed_windows().len(),
            recorded: self.recorded.len(),
            again: self.recorded.values().filter(|n| **n > 1).count(),
            restarts: self.restarts.clone(),
            memory: undisturbed.memory.clone(),
            idle,
        }
    }
}

/// Returns a record's weights as the chain shows them.
fn on_chain(record: &StepRecord) -> Vec<(u16, u16)> {
    let weights = (0..).map(Uid).zip(record.weights_after.iter().map(|w| w.0));
    emit(weights).unwrap().pairs().collect()
}

/// Two runs took the same steps on the same samples, to the same losses and weights.
fn assert_equal(disturbed: &[StepRecord], undisturbed: &[StepRecord]) {
    for (a, b) in disturbed.iter().zip(undisturbed) {
        let step = a.step;
        assert_eq!(
            (step, &a.competition),
            (b.step, &b.competition),
            "step {step}"
        );
        assert_eq!(a.samples.digest, b.samples.digest, "step {step}");
        assert_eq!(losses(a), losses(b), "step {step}");
        assert_eq!(a.weights_after, b.weights_after, "step {step}");
    }
}

fn losses(record: &StepRecord) -> BTreeMap<Uid, &[subnet::Real]> {
    let rows = record.models.iter();
    rows.map(|(uid, row)| (*uid, row.losses.as_slice()))
        .collect()
}

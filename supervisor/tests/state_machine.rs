//! Any order of events, faults and crashes: never two children, never none without a reason, never
//! an unproven version, always a way back.

#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use supervisor::{
    child::state::{self as child, Child, Stage},
    error::{Blame, Fault},
    update::state::{self as update, Effect, Haste, Now, Phase, Policy, Polled, State, Version},
};

/// What chance does to the world.
#[derive(Debug, Clone)]
enum Chance {
    /// The oldest running step ends well.
    StepWorks,
    /// The oldest running step fails.
    StepFails(Blame),
    /// The remote gets a new commit.
    NewCommit,
    /// The child says that it is ready.
    Ready,
    /// The child ends by itself.
    ChildEnds(Option<i32>),
    /// Time passes.
    Seconds(u64),
    /// The operator asks.
    Ask(Haste),
    GoBack,
    Restart,
    /// The supervisor is killed and started again.
    Crash,
    /// The child's status file says that a restart would hurt, or no longer does.
    Busy(bool),
}

fn chance() -> impl Strategy<Value = Chance> {
    let blame = prop_oneof![
        Just(Blame::Outside),
        Just(Blame::Machine),
        Just(Blame::Code),
        Just(Blame::Refused),
        Just(Blame::Config)
    ];
    let haste = prop_oneof![Just(Haste::Asked), Just(Haste::Forced)];
    prop_oneof![
        6 => Just(Chance::StepWorks),
        2 => blame.prop_map(Chance::StepFails),
        2 => Just(Chance::NewCommit),
        2 => Just(Chance::Ready),
        2 => prop_oneof![Just(None), Just(Some(1)), Just(Some(78))].prop_map(Chance::ChildEnds),
        4 => (0_u64..400).prop_map(Chance::Seconds),
        2 => haste.prop_map(Chance::Ask),
        1 => Just(Chance::GoBack),
        1 => Just(Chance::Restart),
        2 => Just(Chance::Crash),
        1 => any::<bool>().prop_map(Chance::Busy),
    ]
}

/// The two machines, put together as the supervisor does, over a world without files.
struct World {
    update: State,
    child: Child,
    policy: Policy,
    now: Duration,
    tip: u32,
    busy: bool,
    /// Steps under way.
    steps: Vec<Effect>,
    /// Processes that run: pid and release.
    processes: Vec<(u32, String)>,
    last_pid: u32,
    built: BTreeSet<String>,
    tested: BTreeSet<String>,
    /// Releases that have run.
    ran: BTreeSet<String>,
    current: Option<String>,
}

fn version(number: u32) -> Version {
    let commit = format!("c{number}");
    Version {
        release: commit.clone(),
        source: commit.clone(),
        commit,
        summary: String::new(),
        signer: None,
    }
}

impl World {
    fn new() -> Self {
        let seconds = Duration::from_secs;
        let mut world = Self {
            update: State::default(),
            // The old version may take longer to end than the new one has to get ready.
            child: Child::new(seconds(40)),
            policy: Policy {
                interval: seconds(60),
                jitter: seconds(3),
                hold_off: seconds(20),
                ready_timeout: seconds(30),
                probation: seconds(30),
                max_wait: seconds(120),
                updates: true,
            },
            now: Duration::ZERO,
            tip: 1,
            busy: false,
            steps: Vec::new(),
            processes: Vec::new(),
            last_pid: 100,
            built: BTreeSet::new(),
            tested: BTreeSet::new(),
            ran: BTreeSet::new(),
            current: None,
        };
        world.update(update::Event::Started);
        world
    }

    fn update(&mut self, event: update::Event) {
        let now = Now {
            at: self.now,
            unsafe_because: self.busy.then(|| "busy".to_owned()),
            up: self.child.up().map(str::to_owned),
            failing: self.child.failing().map(str::to_owned),
            ..Now::default()
        };
        let (state, effects) = update::step(self.update.clone(), event, &now, &self.policy);
        self.update = state;
        for effect in effects {
            match effect {
                Effect::Run(release) => self.child(child::Event::Want(release)),
                Effect::Record(_) => {}
                Effect::Switch(ref to) => {
                    assert!(
                        self.tested.contains(&to.release),
                        "switch to an untested {to:?}"
                    );
                    self.steps.push(effect);
                }
                Effect::Test(ref version) => {
                    assert!(self.built.contains(&version.release));
                    self.steps.push(effect);
                }
                Effect::Accept(ref version) => {
                    let first = self.update.previous.is_none();
                    assert!(
                        first || self.ran.contains(&version.release),
                        "{version:?} never ran"
                    );
                    self.steps.push(effect);
                }
                Effect::Poll { .. } | Effect::Build(_) => self.steps.push(effect),
            }
        }
        if let Phase::Switching { .. } | Phase::Probation { .. } = self.update.phase
            && let Some(accepted) = &self.update.accepted
        {
            assert!(self.tested.contains(&accepted.release), "no way back");
        }
    }

    fn child(&mut self, event: child::Event) {
        for effect in self.child.step(event, self.now, 500) {
            match effect {
                child::Effect::Spawn(release) => {
                    assert!(self.processes.is_empty(), "a second child");
                    assert!(self.tested.contains(&release), "an untested child");
                    self.ran.insert(release.clone());
                    self.last_pid += 1;
                    self.processes.push((self.last_pid, release));
                    self.child(child::Event::Spawned(self.last_pid));
                }
                child::Effect::Terminate(pid) => {
                    assert!(self.processes.iter().any(|(running, _)| *running == pid));
                }
                child::Effect::KillGroup(pid) => self.end(pid, None),
                child::Effect::Started(release) => {
                    self.update(update::Event::ChildStarted(release));
                }
                child::Effect::Ready(release) => self.update(update::Event::ChildReady(release)),
                child::Effect::Failed { release, how } => {
                    self.update(update::Event::ChildFailed { release, how });
                }
            }
        }
        if matches!(self.child.stage, Stage::Sweeping { .. }) && self.processes.is_empty() {
            self.child(child::Event::Tick { group_empty: true });
        }
    }

    fn end(&mut self, pid: u32, code: Option<i32>) {
        let before = self.processes.len();
        self.processes.retain(|(running, _)| *running != pid);
        if self.processes.len() < before {
            self.child(child::Event::Exited {
                how: format!("{code:?}"),
                code,
            });
        }
    }

    fn step_ends(&mut self, fault: Option<Blame>) {
        if self.steps.is_empty() {
            return;
        }
        let effect = self.steps.remove(0);
        let answer = fault.map_or(Ok(()), |blame| Err(Fault::new(blame, "bad luck")));
        let event = match effect {
            Effect::Poll { .. } => update::Event::Polled(answer.map(|()| {
                let accepted = self.update.accepted.as_ref();
                let new =
                    accepted.is_none_or(|accepted| accepted.commit != format!("c{}", self.tip));
                if new {
                    Polled::New(version(self.tip))
                } else {
                    Polled::UpToDate
                }
            })),
            Effect::Build(version) => {
                if answer.is_ok() {
                    self.built.insert(version.release);
                }
                update::Event::Built(answer)
            }
            Effect::Test(version) => {
                if answer.is_ok() {
                    self.tested.insert(version.release);
                }
                update::Event::Tested(answer)
            }
            Effect::Switch(version) => {
                if answer.is_ok() {
                    self.current = Some(version.release);
                }
                update::Event::Switched(answer)
            }
            Effect::Accept(_) => update::Event::Tidied,
            Effect::Run(_) | Effect::Record(_) => return,
        };
        self.update(event);
    }

    fn crash(&mut self) {
        let journal = serde_json::to_string(&self.update).unwrap();
        self.update = serde_json::from_str(&journal).unwrap();
        self.steps.clear();
        self.child = Child::new(self.child.stop_timeout);
        self.now += Duration::from_secs(1);
        if let Some((pid, release)) = self.processes.first().cloned() {
            self.child(child::Event::Adopted { pid, release });
        }
        self.update(update::Event::Started);
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            if self.child.due(self.now).is_some_and(|due| due <= self.now) {
                self.child(child::Event::Tick { group_empty: false });
            }
            if self.update.due.is_some_and(|due| due <= self.now) {
                self.update(update::Event::Tick);
            }
        }
    }

    fn happen(&mut self, chance: Chance) {
        match chance {
            Chance::StepWorks => self.step_ends(None),
            Chance::StepFails(blame) => self.step_ends(Some(blame)),
            Chance::NewCommit => self.tip += 1,
            Chance::Ready => self.child(child::Event::Ready),
            Chance::ChildEnds(code) => {
                if let Some((pid, _)) = self.processes.first().cloned() {
                    self.end(pid, code);
                }
            }
            Chance::Seconds(seconds) => self.pass(seconds),
            Chance::Ask(haste) => self.update(update::Event::Ask(haste)),
            Chance::GoBack => self.update(update::Event::GoBack),
            Chance::Restart => self.child(child::Event::Restart),
            Chance::Crash => self.crash(),
            Chance::Busy(busy) => self.busy = busy,
        }
        assert!(self.processes.len() <= 1);
    }

    /// From here on all goes well: a new commit must be running before long.
    fn settle(&mut self) {
        self.tip += 1;
        for _ in 0..200 {
            self.step_ends(None);
            self.child(child::Event::Ready);
            self.pass(5);
        }
        let running: Vec<&str> = self
            .processes
            .iter()
            .map(|(_, release)| release.as_str())
            .collect();
        let tip = format!("c{}", self.tip);
        assert_eq!(running, [tip.as_str()], "{:#?}", self.update);
        assert_eq!(self.current.as_deref(), Some(tip.as_str()));
        assert_eq!(self.update.accepted.as_ref().unwrap().commit, tip);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens(chances in prop::collection::vec(chance(), 0..120)) {
        let mut world = World::new();
        for chance in chances {
            world.happen(chance);
            let reasoned = !world.processes.is_empty()
                || matches!(world.child.stage, Stage::Down(_) | Stage::Sweeping { .. });
            prop_assert!(reasoned, "no child, and no reason: {:?}", world.child.stage);
        }
        world.settle();
    }
}

#[test]
fn the_quarantine_holds_for_one_commit_only() {
    let mut world = World::new();
    world.settle();
    let good = world.update.accepted.clone();
    world.tip += 1;
    world.update(update::Event::Ask(Haste::Asked));
    for _ in 0..4 {
        world.step_ends(None);
    }
    // The old version takes its time to end.
    world.pass(40);
    assert!(matches!(world.update.phase, Phase::Probation { .. }));
    world.happen(Chance::ChildEnds(Some(1)));
    world.step_ends(None);
    assert_eq!(world.update.accepted, good);
    assert!(world.update.quarantine.contains(&format!("c{}", world.tip)));
    world.update(update::Event::Ask(Haste::Asked));
    world.step_ends(None);
    assert_eq!(world.update.phase, Phase::Idle);
    world.settle();
}

#[test]
fn an_outage_is_not_blamed_on_the_new_version() {
    let mut world = World::new();
    world.settle();
    world.happen(Chance::ChildEnds(Some(1)));
    world.tip += 1;
    world.update(update::Event::Ask(Haste::Asked));
    for _ in 0..4 {
        world.step_ends(None);
    }
    world.pass(40);
    assert!(matches!(world.update.phase, Phase::Probation { .. }));
    world.happen(Chance::ChildEnds(Some(1)));
    let commit = format!("c{}", world.tip);
    assert_eq!(world.update.accepted.as_ref().unwrap().commit, commit);
    world.step_ends(None);
}

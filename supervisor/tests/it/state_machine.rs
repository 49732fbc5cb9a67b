//! Any order of events, faults and crashes: never two children, never none without a reason, never
//! an unproven version, always a way back.

mod candidate;
mod child;
mod journal;
mod scenarios;
mod trial;
mod turn;
mod wait;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use proptest::prelude::*;
use supervisor::{
    child::state::{ChildEvent, ChildPolicy, ChildState, Stage},
    error::{Blame, Fault},
    supervise::machine::{Effect, Event, Machine, World},
    update::state::{
        Phase, Polled, Step, UpdateEvent, UpdatePolicy, UpdateState, Urgency, Version,
    },
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
    Seconds(u64),
    Ask {
        urgency: Urgency,
        local: bool,
    },
    GoBack,
    Restart,
    /// The supervisor is killed and started again.
    Crash,
    /// The child's status file says that a restart would hurt, or no longer does.
    Busy(bool),
    /// The disk is full, so that no journal can be written, or no longer is.
    DiskFull(bool),
}

fn chance() -> impl Strategy<Value = Chance> {
    let blame = prop_oneof![
        Just(Blame::Outside),
        Just(Blame::Machine),
        Just(Blame::Code),
        Just(Blame::Refused),
        Just(Blame::Config)
    ];
    let urgency = prop_oneof![Just(Urgency::Asked), Just(Urgency::Forced)];
    prop_oneof![
        6 => Just(Chance::StepWorks),
        2 => blame.prop_map(Chance::StepFails),
        2 => Just(Chance::NewCommit),
        2 => Just(Chance::Ready),
        2 => prop_oneof![Just(None), Just(Some(1)), Just(Some(78))].prop_map(Chance::ChildEnds),
        4 => (0_u64..400).prop_map(Chance::Seconds),
        2 => (urgency, any::<bool>()).prop_map(|(urgency, local)| Chance::Ask { urgency, local }),
        1 => Just(Chance::GoBack),
        1 => Just(Chance::Restart),
        2 => Just(Chance::Crash),
        1 => any::<bool>().prop_map(Chance::Busy),
        1 => any::<bool>().prop_map(Chance::DiskFull),
    ]
}

/// A world without files around the machine that the supervisor runs.
struct Bench {
    machine: Machine,
    /// What is on the disk.
    journal: String,
    disk_full: bool,
    now: Duration,
    tip: u32,
    busy: bool,
    steps: Vec<Step>,
    /// Processes that run: pid and release.
    processes: Vec<(u32, String)>,
    last_pid: u32,
    built: BTreeSet<String>,
    tested: BTreeSet<String>,
    ran: BTreeSet<String>,
    current: Option<String>,
}

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> UpdatePolicy {
    UpdatePolicy {
        interval: 60 * SECOND,
        jitter: 3 * SECOND,
        hold_off: 20 * SECOND,
        ready_timeout: 30 * SECOND,
        probation: 30 * SECOND,
        max_wait: 120 * SECOND,
        updates: true,
    }
}

/// The old version may take longer to end than the new one has to get ready.
const CHILD_POLICY: ChildPolicy = ChildPolicy {
    stop_timeout: Duration::from_secs(40),
};

fn machine(state: UpdateState) -> Machine {
    Machine::new(state, policy(), CHILD_POLICY)
}

fn version(number: u32) -> Version {
    let commit = format!("c{number}");
    Version {
        release: commit.clone(),
        source: commit.clone(),
        commit,
        summary: String::new(),
        signer: None,
        build: String::new(),
        local: Vec::new(),
        left_out: Vec::new(),
    }
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            machine: machine(UpdateState::default()),
            journal: serde_json::to_string(&UpdateState::default()).unwrap(),
            disk_full: false,
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
        bench.take(UpdateEvent::Started);
        bench
    }

    fn update(&self) -> &UpdateState {
        self.machine.update()
    }

    fn child(&self) -> &ChildState {
        self.machine.child()
    }

    fn take(&mut self, event: impl Into<Event>) {
        let mut events = VecDeque::from([event.into()]);
        while let Some(event) = events.pop_front() {
            let world = World {
                at: self.now,
                draw: 500,
                unsafe_because: self.busy.then(|| "busy".to_owned()),
                ..World::default()
            };
            for effect in self.machine.take(event, &world) {
                events.extend(self.perform(effect));
            }
        }
        if let Phase::Switching { .. } | Phase::Probation { .. } = self.update().phase
            && let Some(accepted) = &self.update().accepted
        {
            assert!(self.tested.contains(&accepted.release), "no way back");
        }
        if matches!(self.child().stage, Stage::Sweeping { .. }) && self.processes.is_empty() {
            self.take(ChildEvent::GroupEmpty);
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Journal(_) if self.disk_full => {
                Some(Event::Journaled(Err("the disk is full".into())))
            }
            Effect::Journal(state) => {
                self.journal = serde_json::to_string(&state).unwrap();
                Some(Event::Journaled(Ok(())))
            }
            Effect::Start(step) => {
                self.start(step);
                None
            }
            Effect::Record(_) => None,
            Effect::Spawn(release) => {
                assert!(self.processes.is_empty(), "a second child");
                assert!(self.tested.contains(&release), "an untested child");
                self.ran.insert(release.clone());
                self.last_pid += 1;
                self.processes.push((self.last_pid, release));
                Some(ChildEvent::Spawned(self.last_pid).into())
            }
            Effect::Terminate(pid) => {
                assert!(self.processes.iter().any(|(running, _)| *running == pid));
                None
            }
            Effect::KillGroup(pid) => self.ended(pid, None),
        }
    }

    fn start(&mut self, step: Step) {
        match &step {
            Step::Poll { .. } | Step::Build(_) => {}
            Step::Test(version) => assert!(self.built.contains(&version.release)),
            Step::Switch(to) => {
                assert!(
                    self.tested.contains(&to.release),
                    "switch to an untested {to:?}"
                );
            }
            Step::Accept(version) => {
                let first = self.update().previous.is_none();
                assert!(
                    first || self.ran.contains(&version.release),
                    "{version:?} never ran"
                );
            }
        }
        // What is done now must be what a supervisor that is killed now would find.
        let journal: UpdateState = serde_json::from_str(&self.journal).unwrap();
        assert!(
            journal.persists_as(self.update()),
            "{step:?} before the journal"
        );
        self.steps.push(step);
    }

    fn ended(&mut self, pid: u32, code: Option<i32>) -> Option<Event> {
        let before = self.processes.len();
        self.processes.retain(|(running, _)| *running != pid);
        let how = format!("{code:?}");
        (self.processes.len() < before).then(|| ChildEvent::Exited { how, code }.into())
    }

    fn end(&mut self, pid: u32, code: Option<i32>) {
        if let Some(event) = self.ended(pid, code) {
            self.take(event);
        }
    }

    fn step_ends(&mut self, fault: Option<Blame>) {
        if self.steps.is_empty() {
            return;
        }
        let step = self.steps.remove(0);
        let answer = fault.map_or(Ok(()), |blame| Err(Fault::new(blame, "bad luck")));
        let event = match step {
            Step::Poll { .. } => UpdateEvent::Polled {
                upstream: None,
                found: answer.map(|()| {
                    let accepted = self.update().accepted.as_ref();
                    let new =
                        accepted.is_none_or(|accepted| accepted.commit != format!("c{}", self.tip));
                    if new {
                        Polled::New(version(self.tip))
                    } else {
                        Polled::UpToDate
                    }
                }),
            },
            Step::Build(version) => {
                if answer.is_ok() {
                    self.built.insert(version.release);
                }
                UpdateEvent::Built(answer)
            }
            Step::Test(version) => {
                if answer.is_ok() {
                    self.tested.insert(version.release);
                }
                UpdateEvent::Tested(answer)
            }
            Step::Switch(version) => {
                if answer.is_ok() {
                    self.current = Some(version.release);
                }
                UpdateEvent::Switched(answer)
            }
            Step::Accept(_) => UpdateEvent::Tidied,
        };
        self.take(event);
    }

    /// Whatever is under way ends well.
    fn rest(&mut self) {
        while self.update().phase != Phase::Idle {
            self.step_ends(None);
        }
    }

    fn crash(&mut self) {
        self.machine = machine(serde_json::from_str(&self.journal).unwrap());
        self.steps.clear();
        self.now += SECOND;
        if let Some((pid, release)) = self.processes.first().cloned() {
            self.take(ChildEvent::Adopted { pid, release });
        }
        self.take(UpdateEvent::Started);
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            if self
                .machine
                .due(self.now)
                .is_some_and(|due| due <= self.now)
            {
                self.take(Event::Tick);
            }
        }
    }

    fn happen(&mut self, chance: Chance) {
        let rolls_back = matches!(chance, Chance::GoBack);
        let held = self.update().hold.is_some() && !rolls_back;
        let held = held.then(|| self.update().accepted.as_ref().unwrap().release.clone());
        match chance {
            Chance::StepWorks => self.step_ends(None),
            Chance::StepFails(blame) => self.step_ends(Some(blame)),
            Chance::NewCommit => self.tip += 1,
            Chance::Ready => self.take(ChildEvent::Ready),
            Chance::ChildEnds(code) => {
                if let Some((pid, _)) = self.processes.first().cloned() {
                    self.end(pid, code);
                }
            }
            Chance::Seconds(seconds) => self.pass(seconds),
            Chance::Ask { urgency, local } => self.take(UpdateEvent::Ask { urgency, local }),
            Chance::GoBack => self.take(UpdateEvent::GoBack),
            Chance::Restart => self.take(ChildEvent::Restart),
            Chance::Crash => self.crash(),
            Chance::Busy(busy) => self.busy = busy,
            Chance::DiskFull(full) => self.disk_full = full,
        }
        assert!(self.processes.len() <= 1);
        if let (Some(held), Some(_)) = (&held, &self.update().hold) {
            let accepted = self.update().accepted.as_ref().unwrap();
            assert_eq!(accepted.release, *held, "the operator has rolled back");
        }
    }

    /// From here on all goes well: a new commit must be running before long.
    fn settle(&mut self) {
        self.tip += 1;
        self.disk_full = false;
        if self.update().hold.is_some() {
            self.take(UpdateEvent::ask(Urgency::Asked));
        }
        for _ in 0..200 {
            self.step_ends(None);
            self.take(ChildEvent::Ready);
            self.pass(5);
        }
        let running: Vec<&str> = self
            .processes
            .iter()
            .map(|(_, release)| release.as_str())
            .collect();
        let tip = format!("c{}", self.tip);
        assert_eq!(running, [tip.as_str()], "{:#?}", self.update());
        assert_eq!(self.current.as_deref(), Some(tip.as_str()));
        assert_eq!(self.update().accepted.as_ref().unwrap().commit, tip);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens(chances in prop::collection::vec(chance(), 0..120)) {
        let mut bench = Bench::new();
        for chance in chances {
            bench.happen(chance);
            let reasoned = !bench.processes.is_empty()
                || matches!(bench.child().stage, Stage::Down(_) | Stage::Sweeping { .. });
            prop_assert!(reasoned, "no child, and no reason: {:?}", bench.child().stage);
        }
        bench.settle();
    }
}

//! What the journal holds, and what the machine does while it can't be written.

use std::time::Duration;

use supervisor::{
    child::state::{ChildEvent, Stage},
    supervise::machine::{Effect, Event, Machine, World},
    update::{
        probation::Baseline,
        state::{Outcome, Phase, Retry, Step, UpdateEvent, UpdateState, Urgency},
    },
};

use super::{CHILD_POLICY, machine, policy, turn::ROUTINE_POLL, version};

/// A change of one field.
type Change = fn(&mut UpdateState);

fn candidate() -> Phase {
    Phase::Building {
        candidate: version(2),
    }
}

#[test]
fn the_journal_is_written_for_what_must_survive_and_for_nothing_else() {
    let survives: [Change; 11] = [
        |state| state.phase = candidate(),
        |state| state.accepted = Some(version(2)),
        |state| state.previous = Some(version(2)),
        |state| state.trusted = Some("c2".into()),
        |state| state.trusted_release = Some("v1.0.0".into()),
        |state| state.upstream = vec!["c2".into()],
        |state| state.requested = vec!["own".into()],
        |state| state.quarantine.add(&version(2), "crashed"),
        |state| state.hold = Some("rolled back".into()),
        |state| state.problem = Some("away".into()),
        |state| state.failures = 1,
    ];
    let starts_over: [Change; 13] = [
        |state| {
            state.retry = Some(Retry {
                identity: "c2".into(),
                failures: 1,
                at: Duration::ZERO,
            });
        },
        |state| state.due = Some(Duration::ZERO),
        |state| state.urgency = Urgency::Forced,
        |state| state.ask_local = true,
        |state| state.polled_local = true,
        |state| state.again = true,
        |state| state.seen = Duration::from_secs(1),
        |state| state.seen_release = "c2".into(),
        |state| state.behind_since = Some(Duration::ZERO),
        |state| state.looked = Duration::from_secs(1),
        |state| state.awaits = Some("the window".into()),
        |state| state.give_up = Some(Duration::ZERO),
        |state| state.ready = Some(Duration::ZERO),
    ];
    // A poll that ends where it began leaves nothing to write.
    let polling = UpdateState {
        phase: Phase::Polling,
        ..UpdateState::default()
    };
    assert!(polling.persists_as(&UpdateState::default()));
    let before = UpdateState::default();
    let read = |state: &UpdateState| -> UpdateState {
        serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
    };
    for (changes, persists) in [(survives.as_slice(), true), (starts_over.as_slice(), false)] {
        for (number, change) in changes.iter().enumerate() {
            let mut after = before.clone();
            change(&mut after);
            assert_ne!(after, before);
            assert_eq!(after.persists_as(&before), !persists, "{number}");
            // The file agrees.
            assert_eq!(read(&after) == after, persists, "{number}");
        }
    }
}

#[test]
fn each_phase_knows_what_is_wanted_and_what_is_tried() {
    let baseline = Baseline::default;
    let candidate = || version(2);
    let phases = [
        (Phase::Idle, "idle", false),
        (Phase::Polling, "polling", false),
        (self::candidate(), "building", true),
        (
            Phase::Testing {
                candidate: candidate(),
            },
            "testing",
            true,
        ),
        (
            Phase::Waiting {
                candidate: candidate(),
            },
            "waiting",
            true,
        ),
        (
            Phase::Switching {
                candidate: candidate(),
                baseline: baseline(),
            },
            "switching",
            true,
        ),
        (
            Phase::Probation {
                candidate: candidate(),
                baseline: baseline(),
            },
            "probation",
            true,
        ),
        (Phase::Accepting, "accepting", false),
        (Phase::RollingBack, "rolling-back", false),
    ];
    for (phase, name, tries) in phases {
        let state = UpdateState {
            accepted: Some(version(1)),
            phase,
            ..UpdateState::default()
        };
        assert_eq!(state.phase.name(), name);
        let wanted = if name == "probation" { "c2" } else { "c1" };
        assert_eq!(state.wanted(), Some(wanted), "{name}");
        assert_eq!(state.candidate(), tries.then(candidate).as_ref(), "{name}");
    }
    assert_eq!(UpdateState::default().wanted(), None);
    let outcomes = [
        (Outcome::Accepted, "accepted"),
        (Outcome::AcceptedWithoutRestart, "accepted without restart"),
        (Outcome::Refused, "refused"),
        (Outcome::Failed, "failed"),
        (Outcome::RolledBack, "rolled back"),
    ];
    for (outcome, words) in outcomes {
        assert_eq!(outcome.to_string(), words);
    }
}

fn at(seconds: u64) -> World {
    World {
        at: Duration::from_secs(seconds),
        ..World::default()
    }
}

/// Version 1 runs as process 7, and nothing is due before second 63.
fn running() -> Machine {
    let mut machine = machine(UpdateState {
        accepted: Some(version(1)),
        ..UpdateState::default()
    });
    let release = "c1".to_owned();
    machine.take(ChildEvent::Adopted { pid: 7, release }.into(), &at(0));
    machine.take(UpdateEvent::Started.into(), &at(0));
    assert!(machine.update_is_due(Duration::ZERO));
    let effects = machine.take(Event::Tick, &at(0));
    assert_eq!(effects, [Effect::Start(ROUTINE_POLL)]);
    machine
}

fn written(machine: &mut Machine, seconds: u64) -> Vec<Effect> {
    machine.take(Event::Journaled(Ok(())), &at(seconds))
}

fn not_written(machine: &mut Machine, seconds: u64) -> Vec<Effect> {
    let full = Err("the disk is full".to_owned());
    machine.take(Event::Journaled(full), &at(seconds))
}

#[test]
fn the_child_is_looked_after_while_nothing_can_be_written() {
    let mut machine = running();
    let found = Ok(supervisor::update::state::Polled::New(version(2)));
    let upstream = None;
    let polled = UpdateEvent::Polled { upstream, found };
    let effects = machine.take(polled.into(), &at(1));
    let [Effect::Journal(state)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(state.phase, candidate());
    assert_eq!(
        machine.update().phase,
        Phase::Polling,
        "not before it is written"
    );
    // What comes meanwhile waits for the answer.
    let exited = ChildEvent::Exited {
        how: "code 1".into(),
        code: Some(1),
    };
    assert_eq!(machine.take(exited.into(), &at(1)), []);
    let ask = UpdateEvent::ask(Urgency::Asked);
    assert_eq!(machine.take(ask.clone().into(), &at(1)), []);
    let effects = not_written(&mut machine, 2);
    assert_eq!(effects, [Effect::KillGroup(7)], "the request went with it");
    assert_eq!(machine.problem(), Some("the disk is full"));
    assert_eq!(
        machine.update().phase,
        Phase::Polling,
        "what is on the disk"
    );
    // Swept at each look, although nothing else is due.
    assert_eq!(
        machine.due(Duration::from_secs(2)),
        Some(Duration::from_millis(2020))
    );
    assert_eq!(machine.take(Event::Tick, &at(2)), [Effect::KillGroup(7)]);
    machine.take(ChildEvent::GroupEmpty.into(), &at(2));
    assert_eq!(
        machine.due(Duration::from_secs(2)),
        Some(Duration::from_secs(3))
    );
    assert_eq!(
        machine.take(Event::Tick, &at(3)),
        [Effect::Spawn("c1".into())]
    );
    machine.take(ChildEvent::Spawned(8).into(), &at(3));
    // Tried again after half a minute, or at once when it is asked for.
    assert_eq!(
        machine.due(Duration::from_secs(3)),
        Some(Duration::from_secs(32))
    );
    assert!(!machine.update_is_due(Duration::from_secs(31)));
    assert_eq!(machine.take(Event::Tick, &at(31)), []);
    assert!(machine.update_is_due(Duration::from_secs(32)));
    let effects = machine.take(Event::Tick, &at(32));
    assert!(matches!(effects.as_slice(), [Effect::Journal(_)]));
    assert_eq!(not_written(&mut machine, 32), []);
    let effects = machine.take(ask.into(), &at(33));
    assert!(matches!(effects.as_slice(), [Effect::Journal(_)]));
    assert_eq!(machine.problem(), Some("the disk is full"), "not yet");
    assert_eq!(written(&mut machine, 33), [Effect::Start(ROUTINE_POLL)]);
    assert_eq!(machine.problem(), None);
    assert_eq!(written(&mut machine, 33), [], "nobody asked");
}

#[test]
fn the_worst_problem_is_shown() {
    let state = |hold: Option<&str>, problem: Option<&str>| UpdateState {
        hold: hold.map(str::to_owned),
        problem: problem.map(str::to_owned),
        ..UpdateState::default()
    };
    let shown = |state| machine(state).problem().map(str::to_owned);
    assert_eq!(shown(state(None, None)), None);
    assert_eq!(shown(state(None, Some("away"))).as_deref(), Some("away"));
    assert_eq!(
        shown(state(Some("held"), Some("away"))).as_deref(),
        Some("held")
    );
    let mut stuck = machine(state(Some("held"), Some("away")));
    let upstream = Some(vec!["c2".to_owned()]);
    let found = Ok(supervisor::update::state::Polled::UpToDate);
    stuck.take(UpdateEvent::Polled { upstream, found }.into(), &at(0));
    not_written(&mut stuck, 0);
    assert_eq!(stuck.problem(), Some("the disk is full"));
}

#[test]
fn more_time_is_asked_for_whatever_it_is_waited_for() {
    let probation = UpdateState {
        accepted: Some(version(1)),
        phase: Phase::Probation {
            candidate: version(2),
            baseline: Baseline::default(),
        },
        ..UpdateState::default()
    };
    let mut machine = machine(probation);
    let release = "c1".to_owned();
    machine.take(ChildEvent::Adopted { pid: 7, release }.into(), &at(0));
    let effects = machine.take(UpdateEvent::Started.into(), &at(0));
    assert_eq!(effects, [Effect::Terminate(7)], "version 2 takes its place");
    machine.take(Event::Extend(Duration::from_secs(100)), &at(0));
    let Stage::Stopping { kill_at, .. } = machine.child().stage else {
        panic!("{:?}", machine.child().stage);
    };
    let later = Duration::from_secs(100);
    assert_eq!((kill_at, machine.update().due), (later, Some(later)));
}

#[test]
fn new_rules_hold_from_the_next_event_on() {
    let mut machine = running();
    let mut rules = policy();
    rules.interval = Duration::from_secs(600);
    let mut child_rules = CHILD_POLICY;
    child_rules.stop_timeout = Duration::from_secs(7);
    machine.set_policy(rules, child_rules);
    let found = Ok(supervisor::update::state::Polled::UpToDate);
    let upstream = None;
    machine.take(UpdateEvent::Polled { upstream, found }.into(), &at(1));
    assert_eq!(
        machine.due(Duration::from_secs(1)),
        Some(Duration::from_secs(604))
    );
    machine.take(ChildEvent::Restart.into(), &at(2));
    assert_eq!(
        machine.due(Duration::from_secs(2)),
        Some(Duration::from_secs(9))
    );
}

#[test]
fn a_release_that_is_lost_is_looked_for_upstream() {
    let mut machine = machine(UpdateState {
        accepted: Some(version(1)),
        ..UpdateState::default()
    });
    let effects = machine.take(UpdateEvent::Started.into(), &at(0));
    assert_eq!(effects, [Effect::Spawn("c1".into())]);
    let how = "it is not there".to_owned();
    let lost = true;
    let effects = machine.take(ChildEvent::SpawnFailed { how, lost }.into(), &at(0));
    assert_eq!(effects, [Effect::Start(ROUTINE_POLL)]);
}

#[test]
fn what_a_child_on_probation_says_reaches_the_update() {
    let probation = UpdateState {
        accepted: Some(version(1)),
        phase: Phase::Probation {
            candidate: version(2),
            baseline: Baseline::default(),
        },
        ..UpdateState::default()
    };
    let mut machine = machine(probation);
    let effects = machine.take(UpdateEvent::Started.into(), &at(0));
    assert_eq!(effects, [Effect::Spawn("c2".into())]);
    machine.take(ChildEvent::Spawned(8).into(), &at(5));
    assert_eq!(machine.update().due, Some(Duration::from_secs(35)));
    machine.take(ChildEvent::Ready.into(), &at(6));
    assert_eq!(machine.update().due, Some(Duration::from_secs(36)));
    let exited = ChildEvent::Exited {
        how: "code 1".into(),
        code: Some(1),
    };
    let effects = machine.take(exited.into(), &at(7));
    let [Effect::KillGroup(8), Effect::Journal(state)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(state.phase, Phase::RollingBack);
    let effects = written(&mut machine, 7);
    let switch = Effect::Start(Step::Switch(version(1)));
    assert_eq!(effects.last(), Some(&switch));
}

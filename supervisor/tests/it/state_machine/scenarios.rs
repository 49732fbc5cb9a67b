//! Orders of events that matter by themselves.

use supervisor::{
    child::state::ChildEvent,
    update::state::{Phase, Step, UpdateEvent, UpdatePolicy, Urgency},
};

use super::{Bench, CHILD_POLICY, Chance, SECOND, policy};

#[test]
fn the_quarantine_holds_for_one_commit_only() {
    let mut bench = Bench::new();
    bench.settle();
    bench.rest();
    let good = bench.update().accepted.clone();
    bench.tip += 1;
    bench.take(UpdateEvent::ask(Urgency::Asked));
    for _ in 0..4 {
        bench.step_ends(None);
    }
    // The old version takes its time to end.
    bench.pass(40);
    assert!(matches!(bench.update().phase, Phase::Probation { .. }));
    bench.happen(Chance::ChildEnds(Some(1)));
    bench.step_ends(None);
    assert_eq!(bench.update().accepted, good);
    let bad = format!("c{}", bench.tip);
    let quarantined = |bench: &Bench| {
        let mut commits = bench.update().quarantine.iter();
        commits.any(|(commit, _)| commit == bad)
    };
    assert!(quarantined(&bench));
    bench.take(UpdateEvent::ask(Urgency::Asked));
    bench.step_ends(None);
    assert_eq!(bench.update().phase, Phase::Idle);
    bench.settle();
}

#[test]
fn an_outage_is_not_blamed_on_the_new_version() {
    let mut bench = Bench::new();
    bench.settle();
    bench.rest();
    bench.happen(Chance::ChildEnds(Some(1)));
    bench.tip += 1;
    bench.take(UpdateEvent::ask(Urgency::Asked));
    for _ in 0..4 {
        bench.step_ends(None);
    }
    bench.pass(40);
    assert!(matches!(bench.update().phase, Phase::Probation { .. }));
    bench.happen(Chance::ChildEnds(Some(1)));
    let commit = format!("c{}", bench.tip);
    assert_eq!(bench.update().accepted.as_ref().unwrap().commit, commit);
    bench.step_ends(None);
}

#[test]
fn local_changes_asked_for_while_the_journal_is_stuck_are_looked_at() {
    let mut bench = Bench::new();
    bench.settle();
    bench.rest();
    bench.disk_full = true;
    bench.happen(Chance::NewCommit);
    bench.take(UpdateEvent::ask(Urgency::Asked));
    bench.step_ends(None);
    assert!(bench.machine.problem().is_some(), "nothing can be written");
    let ask = |local| UpdateEvent::Ask {
        urgency: Urgency::Asked,
        local,
    };
    bench.take(ask(true));
    assert_eq!(bench.steps, []);
    bench.disk_full = false;
    bench.take(ask(true));
    let look = Step::Poll {
        forced: false,
        local: true,
    };
    assert_eq!(bench.steps, [look]);
    assert_eq!(bench.machine.problem(), None);
}

#[test]
fn what_set_out_before_a_request_does_not_answer_it() {
    let mut bench = Bench::new();
    bench.settle();
    bench.rest();
    let ask = |local| UpdateEvent::Ask {
        urgency: Urgency::Asked,
        local,
    };
    bench.tip += 1;
    bench.take(ask(true));
    bench.take(ask(false));
    bench.step_ends(None);
    // The local changes that were asked for first are still asked for.
    let look = Step::Poll {
        forced: false,
        local: true,
    };
    assert_eq!(bench.steps, [look]);
    bench.step_ends(None);
    assert!(matches!(bench.update().phase, Phase::Building { .. }));
}

/// A node whose turn comes long after a commit was seen.
fn last_in_line() -> Bench {
    let mut bench = Bench::new();
    bench.settle();
    let policy = UpdatePolicy {
        hold_off: 600 * SECOND,
        ..policy()
    };
    bench.machine.set_policy(policy, CHILD_POLICY);
    bench.tip += 1;
    bench.pass(70);
    for _ in 0..3 {
        bench.step_ends(None);
    }
    assert!(matches!(bench.update().phase, Phase::Waiting { .. }));
    bench
}

#[test]
fn what_upstream_takes_back_stops_those_that_have_not_switched() {
    let mut bench = last_in_line();
    let bad = format!("c{}", bench.tip);
    bench.tip -= 1;
    bench.pass(600);
    bench.step_ends(None);
    assert_eq!(bench.update().phase, Phase::Idle);
    assert!(!bench.ran.contains(&bad));
    // What still stands is switched to, without waiting for another turn.
    let mut bench = last_in_line();
    bench.pass(600);
    for _ in 0..3 {
        bench.step_ends(None);
    }
    assert!(matches!(bench.update().phase, Phase::Switching { .. }));
}

#[test]
fn commits_that_never_stop_keep_nobody_from_an_update() {
    let mut bench = last_in_line();
    let first = bench.update().accepted.clone();
    for _ in 0..10 {
        bench.pass(400);
        bench.tip += 1;
        for _ in 0..3 {
            bench.step_ends(None);
        }
        bench.pass(300);
        for _ in 0..3 {
            bench.step_ends(None);
        }
        bench.take(ChildEvent::Ready);
    }
    bench.pass(100);
    assert_ne!(bench.update().accepted, first);
}

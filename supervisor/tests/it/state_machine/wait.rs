//! From a proven version to the switch: turn, window, safe point, rule by rule.

use supervisor::update::{
    probation::Baseline,
    state::{Phase, Polled, Step, UpdateEvent, Urgency},
};

use super::{
    turn::{ROUTINE_POLL, Turn, seconds, start},
    version,
};

/// Version 2 was built and tested, and was first seen just now.
fn proven() -> Turn {
    let mut turn = Turn::with_a_version();
    turn.polled(Ok(Polled::New(version(2))));
    turn.take(UpdateEvent::Built(Ok(())));
    turn
}

fn switching(turn: &Turn) -> bool {
    matches!(turn.state.phase, Phase::Switching { .. })
}

fn waiting(turn: &Turn) -> bool {
    matches!(turn.state.phase, Phase::Waiting { .. })
}

#[test]
fn a_proven_version_waits_for_this_nodes_turn() {
    let mut turn = proven();
    turn.state.failures = 2;
    assert_eq!(turn.take(UpdateEvent::Tested(Ok(()))), []);
    assert!(waiting(&turn));
    assert_eq!((turn.due(), turn.state.failures), (Some(1020), 0));
    let awaits = turn.state.awaits.as_deref();
    assert_eq!(awaits, Some("this node's turn (hold-off)"));
    turn.now.health = Some(shared::status::Health::Yellow);
    turn.now.failing = Some("code 1".into());
    let effects = turn.tick(1020);
    assert_eq!(effects, [start(Step::Switch(version(2)))]);
    let baseline = Baseline {
        health: turn.now.health,
        failing: turn.now.failing.clone(),
    };
    let candidate = version(2);
    let phase = Phase::Switching {
        candidate,
        baseline,
    };
    assert_eq!(turn.state.phase, phase);
    assert_eq!((turn.due(), turn.state.awaits.clone()), (None, None));
}

#[test]
fn what_was_only_put_back_is_not_switched_to() {
    let mut turn = Turn::with_a_version();
    turn.polled(Ok(Polled::New(version(1))));
    turn.take(UpdateEvent::Built(Ok(())));
    assert_eq!(turn.take(UpdateEvent::Tested(Ok(()))), []);
    assert_eq!(
        (turn.state.phase.clone(), turn.due()),
        (Phase::Idle, Some(1063))
    );
}

#[test]
fn the_later_of_turn_and_window_is_waited_for_and_named() {
    for (window, due, awaits) in [
        (19, 1020, "this node's turn (hold-off)"),
        (20, 1020, "this node's turn (hold-off)"),
        (21, 1021, "the window"),
        // The clock on the wall may be set: it is looked at again.
        (10_000, 1900, "the window"),
    ] {
        let mut turn = proven();
        turn.now.window_in = seconds(window);
        turn.take(UpdateEvent::Tested(Ok(())));
        assert_eq!(turn.due(), Some(due));
        assert_eq!(turn.state.awaits.as_deref(), Some(awaits));
    }
}

#[test]
fn a_wish_and_a_first_version_wait_for_neither() {
    let mut turn = proven();
    turn.now.window_in = seconds(10_000);
    turn.take(UpdateEvent::Tested(Ok(())));
    let effects = turn.take(UpdateEvent::ask(Urgency::Asked));
    assert_eq!(effects, [start(Step::Switch(version(2)))]);
    assert_eq!(turn.state.urgency, Urgency::Routine, "it has been served");
    let mut turn = proven();
    turn.state.accepted = None;
    turn.now.window_in = seconds(10_000);
    let effects = turn.take(UpdateEvent::Tested(Ok(())));
    assert_eq!(effects, [start(Step::Switch(version(2)))]);
}

#[test]
fn commits_that_follow_each_other_move_a_turn_four_times_at_most() {
    let mut turn = proven();
    turn.state.seen = seconds(1000);
    for (behind_since, due) in [(940, 1020), (930, 1010)] {
        turn.state.behind_since = Some(seconds(behind_since));
        let mut turn = turn.clone();
        turn.take(UpdateEvent::Tested(Ok(())));
        assert_eq!(turn.due(), Some(due));
    }
}

#[test]
fn upstream_is_asked_again_before_a_switch_that_it_may_have_taken_back() {
    for (age, asks) in [(59, false), (60, true)] {
        let mut turn = proven();
        turn.state.looked = seconds(1020 - age);
        turn.take(UpdateEvent::Tested(Ok(())));
        let effects = turn.tick(1020);
        let poll = effects == [start(ROUTINE_POLL)];
        assert_eq!((poll, switching(&turn)), (asks, !asks), "{age}");
    }
    // While a safe point is waited for, as often as usual.
    for (age, asks) in [(62, false), (63, true)] {
        let mut turn = proven();
        turn.take(UpdateEvent::Tested(Ok(())));
        turn.state.give_up = Some(seconds(1100));
        turn.now.unsafe_because = Some("busy".into());
        turn.state.looked = seconds(1020 - age);
        let effects = turn.tick(1020);
        assert_eq!(effects == [start(ROUTINE_POLL)], asks, "{age}");
    }
    // Not for the operator, who is told at once.
    let mut turn = proven();
    turn.state.looked = seconds(1);
    turn.take(UpdateEvent::Tested(Ok(())));
    turn.take(UpdateEvent::ask(Urgency::Asked));
    assert!(switching(&turn));
}

#[test]
fn a_safe_point_is_waited_for_but_not_for_ever() {
    let mut turn = proven();
    turn.take(UpdateEvent::Tested(Ok(())));
    turn.now.unsafe_because = Some("weights are on their way".into());
    assert_eq!(turn.tick(1020), []);
    assert_eq!(
        (turn.due(), turn.state.give_up),
        (Some(1021), Some(seconds(1140)))
    );
    let awaits = turn.state.awaits.as_deref();
    assert_eq!(awaits, Some("a safe point: weights are on their way"));
    turn.state.looked = seconds(1139);
    turn.state.due = Some(seconds(1139));
    assert_eq!(turn.tick(1139), []);
    assert_eq!(turn.due(), Some(1140));
    assert_eq!(turn.tick(1140), [start(Step::Switch(version(2)))]);
    assert_eq!(turn.state.awaits, None);
    // Asked for, it waits for it; insisted on, it does not.
    for (urgency, switches) in [(Urgency::Asked, false), (Urgency::Forced, true)] {
        let mut turn = proven();
        turn.now.unsafe_because = Some("busy".into());
        turn.take(UpdateEvent::Tested(Ok(())));
        turn.take(UpdateEvent::ask(urgency));
        assert_eq!(switching(&turn), switches, "{urgency:?}");
    }
}

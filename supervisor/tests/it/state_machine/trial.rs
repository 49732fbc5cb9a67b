//! From the switch to the verdict, and the way back, rule by rule.

use shared::status::Health;
use supervisor::{
    error::Blame,
    update::{
        probation::Baseline,
        state::{Outcome, Phase, Step, UpdateEvent, Version},
    },
};

use super::{
    turn::{Turn, fault, record, run, seconds, start},
    version,
};

fn switching(candidate: Version) -> Phase {
    Phase::Switching {
        candidate,
        baseline: Baseline::default(),
    }
}

/// Version 2 was switched to at second 1,000, after version 1.
fn on_probation() -> Turn {
    let mut turn = Turn::with_a_version();
    turn.state.phase = switching(version(2));
    turn.state.seen = seconds(990);
    turn.state.ready = Some(seconds(1));
    assert_eq!(turn.take(UpdateEvent::Switched(Ok(()))), [run("c2")]);
    assert_eq!((turn.state.wanted(), turn.state.ready), (Some("c2"), None));
    turn.now.up = Some("c2".into());
    turn
}

fn ready(turn: &mut Turn) {
    assert_eq!(turn.take(UpdateEvent::ChildReady("c2".into())), []);
}

fn failed(release: &str) -> UpdateEvent {
    UpdateEvent::ChildFailed {
        release: release.into(),
        how: "code 1".into(),
    }
}

/// Version 2 is taken back for this reason.
fn assert_taken_back(mut turn: Turn, event: UpdateEvent, reason: &str) {
    let seconds = turn.now.at.as_secs() - 990;
    let note = record(Outcome::RolledBack, &version(2), seconds, reason);
    let back = [note, run("c1"), start(Step::Switch(version(1)))];
    assert_eq!(turn.take(event), back);
    assert_eq!(turn.quarantined(), ["c2"]);
    assert_eq!(turn.state.problem.as_deref(), Some(reason));
    assert_eq!(
        (turn.state.phase.clone(), turn.due()),
        (Phase::RollingBack, None)
    );
    assert_eq!(turn.take(UpdateEvent::Switched(Ok(()))), []);
    assert_eq!(
        (turn.state.phase.clone(), turn.state.wanted()),
        (Phase::Idle, Some("c1"))
    );
}

/// Version 2 stays, with this remark.
fn assert_accepted(mut turn: Turn, event: UpdateEvent, remark: &str) {
    turn.state.problem = Some("the remote was away".into());
    turn.state.quarantine.add(&version(7), "crashed");
    turn.state.behind_since = Some(seconds(1));
    let seconds = turn.now.at.as_secs() - 990;
    let note = record(Outcome::Accepted, &version(2), seconds, remark);
    let effects = turn.take(event);
    assert_eq!(effects, [note, start(Step::Accept(version(2)))]);
    assert!(turn.quarantined().is_empty());
    assert_eq!(
        (&turn.state.problem, turn.state.behind_since),
        (&None, None)
    );
    assert_eq!(turn.state.previous, Some(version(1)));
    assert_eq!(turn.state.accepted, Some(version(2)));
    assert_eq!(turn.state.trusted.as_deref(), Some("c2"));
    assert_eq!(
        (turn.state.phase.clone(), turn.due()),
        (Phase::Accepting, None)
    );
    assert_eq!(turn.take(UpdateEvent::Tidied), []);
    assert_eq!(turn.due(), Some(turn.now.at.as_secs() + 63));
}

#[test]
fn the_first_version_is_accepted_as_it_is() {
    let mut turn = Turn::first();
    turn.state.phase = switching(version(2));
    let note = record(Outcome::Accepted, &version(2), 1000, "the first version");
    let effects = turn.take(UpdateEvent::Switched(Ok(())));
    assert_eq!(effects, [note, start(Step::Accept(version(2))), run("c2")]);
    assert_eq!(turn.state.previous, None);
}

#[test]
fn a_switch_that_fails_leaves_the_old_version() {
    for (blame, quarantined) in [(Blame::Machine, 0), (Blame::Code, 1)] {
        let mut turn = Turn::with_a_version();
        turn.state.phase = switching(version(2));
        turn.take(UpdateEvent::Switched(Err(fault(blame))));
        assert_eq!(
            (turn.state.phase.clone(), turn.state.wanted()),
            (Phase::Idle, Some("c1"))
        );
        assert_eq!(turn.quarantined().len(), quarantined);
    }
}

#[test]
fn the_way_back_is_tried_until_it_works() {
    let mut turn = Turn::with_a_version();
    turn.state.phase = Phase::RollingBack;
    assert_eq!(
        turn.take(UpdateEvent::Switched(Err(fault(Blame::Machine)))),
        []
    );
    assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
    assert_eq!(
        (turn.state.phase.clone(), turn.due()),
        (Phase::RollingBack, Some(1005))
    );
    let back = [run("c1"), start(Step::Switch(version(1)))];
    assert_eq!(turn.tick(1005), back);
    assert_eq!(turn.due(), None);
}

#[test]
fn after_a_crash_it_goes_on_where_the_journal_stopped() {
    let began = |phase, failing: Option<&str>| {
        let mut turn = Turn::with_a_version();
        turn.state.phase = phase;
        turn.state.seen = seconds(990);
        turn.now.failing = failing.map(str::to_owned);
        let effects = turn.take(UpdateEvent::Started);
        (effects, turn)
    };
    let (effects, turn) = began(switching(version(2)), None);
    assert_eq!(effects, [run("c1"), start(Step::Switch(version(2)))]);
    assert_eq!(turn.state.phase, switching(version(2)));
    let (effects, _) = began(Phase::Accepting, None);
    assert_eq!(effects, [run("c1"), start(Step::Accept(version(1)))]);
    let back = [run("c1"), start(Step::Switch(version(1)))];
    let (effects, _) = began(Phase::RollingBack, None);
    assert_eq!(effects, back);
    let probation = on_probation().state.phase;
    let (effects, turn) = began(probation.clone(), None);
    assert_eq!(
        (effects.as_slice(), turn.due()),
        ([run("c2")].as_slice(), Some(1030))
    );
    // It failed while the journal could not be written.
    let (effects, turn) = began(probation, Some("code 1"));
    assert_eq!(effects[0], run("c2"));
    assert_eq!(effects[2..], back);
    assert_eq!(turn.quarantined(), ["c2"]);
    // It was ready already.
    let mut turn = on_probation();
    turn.state.ready = Some(seconds(990));
    turn.take(UpdateEvent::Started);
    assert_eq!(turn.due(), Some(1020));
}

#[test]
fn its_time_begins_when_it_is_started_and_again_when_it_is_ready() {
    let mut turn = on_probation();
    let started = |release: &str| UpdateEvent::ChildStarted(release.into());
    turn.now.at = seconds(1010);
    turn.take(started("c2"));
    assert_eq!(turn.due(), Some(1040));
    turn.now.at = seconds(1012);
    turn.take(started("c1"));
    turn.take(UpdateEvent::ChildReady("c1".into()));
    assert_eq!((turn.due(), turn.state.ready), (Some(1040), None));
    ready(&mut turn);
    assert_eq!(
        (turn.due(), turn.state.ready),
        (Some(1042), Some(seconds(1012)))
    );
    turn.now.at = seconds(1015);
    ready(&mut turn);
    assert_eq!(
        (turn.due(), turn.state.ready),
        (Some(1042), Some(seconds(1012)))
    );
    turn.take(started("c2"));
    assert_eq!((turn.due(), turn.state.ready), (Some(1045), None));
    // Of no update: nothing is due for it.
    let mut turn = Turn::with_a_version();
    turn.take(started("c1"));
    turn.take(UpdateEvent::ChildReady("c1".into()));
    assert_eq!((turn.due(), turn.state.ready), (None, None));
}

#[test]
fn more_time_is_given_until_it_is_ready_and_never_taken_away() {
    let mut turn = on_probation();
    turn.take(UpdateEvent::ChildStarted("c2".into()));
    turn.take(UpdateEvent::Extend(seconds(10)));
    assert_eq!(turn.due(), Some(1030));
    turn.take(UpdateEvent::Extend(seconds(60)));
    assert_eq!(turn.due(), Some(1060));
    ready(&mut turn);
    turn.take(UpdateEvent::Extend(seconds(60)));
    assert_eq!(turn.due(), Some(1030));
    let mut idle = Turn::with_a_version();
    idle.take(UpdateEvent::Started);
    idle.take(UpdateEvent::Extend(seconds(60)));
    assert_eq!(idle.due(), Some(1000));
}

#[test]
fn a_failure_on_probation_takes_it_back_unless_the_old_one_failed_alike() {
    let reason = "the new version failed: code 1";
    assert_taken_back(on_probation(), failed("c2"), reason);
    let mut turn = on_probation();
    let before = turn.state.clone();
    assert_eq!(turn.take(failed("c1")), [], "the old one's last breath");
    assert_eq!(turn.state, before);
    for (old, stays) in [("code 1", true), ("code 2", false)] {
        let mut turn = on_probation();
        if let Phase::Probation { baseline, .. } = &mut turn.state.phase {
            baseline.failing = Some(old.to_owned());
        }
        if stays {
            let remark = "fails as the old version did, so it is not to blame";
            assert_accepted(turn, failed("c2"), remark);
        } else {
            assert_taken_back(turn, failed("c2"), reason);
        }
    }
}

#[test]
fn it_must_get_ready_in_time_if_it_can_say_so() {
    let mut turn = on_probation();
    turn.take(UpdateEvent::ChildStarted("c2".into()));
    turn.now.at = seconds(1030);
    turn.now.speaks = true;
    assert_taken_back(turn.clone(), UpdateEvent::Tick, "not ready within 30 s");
    turn.now.speaks = false;
    assert_eq!(turn.take(UpdateEvent::Tick), []);
    assert_eq!(
        (turn.due(), turn.state.ready),
        (Some(1060), Some(seconds(1030)))
    );
    // The old one has not ended yet: the new one's time is yet to begin.
    for up in [None, Some("c1".to_owned())] {
        let mut turn = on_probation();
        turn.state.due = Some(seconds(1030));
        turn.now.up = up;
        turn.now.speaks = true;
        assert_eq!(turn.tick(1030), []);
        assert_eq!(turn.due(), None);
        assert!(matches!(turn.state.phase, Phase::Probation { .. }));
    }
}

#[test]
fn it_is_judged_by_its_health_when_its_term_is_over() {
    let judged = |health, at| {
        let mut turn = on_probation();
        ready(&mut turn);
        turn.now.at = seconds(at);
        turn.now.health = health;
        turn.state.due = Some(turn.now.at);
        turn
    };
    let tick = UpdateEvent::Tick;
    let mut early = judged(Some(Health::Red), 1020);
    assert_eq!(early.take(tick.clone()), []);
    assert_eq!(early.due(), Some(1030));
    assert_accepted(judged(Some(Health::Green), 1030), tick.clone(), "");
    let mut yellow = judged(Some(Health::Yellow), 1030);
    assert_eq!(yellow.take(tick.clone()), []);
    assert_eq!(yellow.due(), Some(1060));
    let remark = "accepted, although its health is yellow";
    assert_accepted(judged(Some(Health::Yellow), 1060), tick.clone(), remark);
    let reason = "its health is worse than the old version's";
    assert_taken_back(judged(Some(Health::Red), 1030), tick, reason);
}

#[test]
fn the_same_release_again_keeps_the_way_back() {
    let mut turn = Turn::with_a_version();
    turn.state.previous = Some(version(0));
    let mut again = version(1);
    again.commit = "v1.2.0".into();
    turn.state.phase = switching(again.clone());
    turn.take(UpdateEvent::Switched(Ok(())));
    turn.take(UpdateEvent::ChildReady("c1".into()));
    turn.now.up = Some("c1".into());
    turn.tick(1030);
    assert_eq!(turn.state.accepted, Some(again));
    assert_eq!(turn.state.previous, Some(version(0)));
    // It came from the release channel, which has a line of its own.
    assert_eq!(turn.state.trusted_release.as_deref(), Some("v1.2.0"));
    assert_eq!(turn.state.trusted, None);
}

#[test]
fn the_operator_goes_back_when_nothing_is_under_way_and_there_is_a_way() {
    let mut turn = Turn::with_a_version();
    assert_eq!(turn.take(UpdateEvent::GoBack), []);
    turn.state.previous = Some(version(0));
    turn.state.seen = seconds(1);
    turn.state.seen_release = "c9".into();
    turn.state.phase = Phase::Polling;
    assert_eq!(turn.take(UpdateEvent::GoBack), []);
    turn.state.phase = Phase::Idle;
    let note = record(
        Outcome::RolledBack,
        &version(1),
        0,
        "rolled back by the operator",
    );
    let back = [note, run("c0"), start(Step::Switch(version(0)))];
    assert_eq!(turn.take(UpdateEvent::GoBack), back);
    assert_eq!(turn.quarantined(), ["c1"]);
    assert_eq!(
        (turn.state.wanted(), &turn.state.previous),
        (Some("c0"), &None)
    );
    assert_eq!(
        (turn.state.seen, turn.state.seen_release.as_str()),
        (seconds(1000), "")
    );
    let hold = turn.state.hold.as_deref().unwrap();
    assert!(hold.contains("you rolled back"), "{hold}");
}

//! From a poll to a version that is built and tested, rule by rule.

use supervisor::{
    error::{Blame, Fault},
    update::state::{LocalChange, Outcome, Phase, Polled, Step, UpdateEvent, Urgency, Version},
};

use super::{
    turn::{ROUTINE_POLL, Turn, fault, record, run, seconds, start},
    version,
};

#[test]
fn a_poll_begins_when_it_is_due_or_asked_for() {
    let mut turn = Turn::with_a_version();
    turn.take(UpdateEvent::Started);
    assert_eq!(turn.due(), Some(1000));
    turn.state.due = Some(seconds(1001));
    assert_eq!(turn.take(UpdateEvent::Tick), []);
    assert_eq!(turn.tick(1001), [start(ROUTINE_POLL)]);
    assert_eq!(
        (turn.state.phase.clone(), turn.due()),
        (Phase::Polling, None)
    );
    for (urgency, forced) in [
        (Urgency::Routine, false),
        (Urgency::Asked, false),
        (Urgency::Forced, true),
    ] {
        let mut turn = Turn::with_a_version();
        let local = forced;
        let effects = turn.take(UpdateEvent::Ask { urgency, local });
        assert_eq!(effects, [start(Step::Poll { forced, local })]);
        assert_eq!(turn.state.urgency, urgency);
    }
}

#[test]
fn what_was_asked_for_is_not_forgotten_while_something_else_is_under_way() {
    let mut turn = Turn::with_a_version();
    turn.state.hold = Some("rolled back".into());
    let ask = |urgency, local| UpdateEvent::Ask { urgency, local };
    turn.state.phase = Phase::Accepting;
    turn.take(ask(Urgency::Routine, true));
    assert!(turn.state.hold.is_some(), "only the operator lifts it");
    for (urgency, local) in [(Urgency::Forced, false), (Urgency::Asked, true)] {
        assert_eq!(turn.take(ask(urgency, local)), []);
        assert!(turn.state.ask_local);
        assert_eq!(turn.state.urgency, Urgency::Forced);
        assert_eq!(turn.state.hold, None);
    }
    // Looked at as soon as this is over.
    turn.take(UpdateEvent::Tidied);
    assert_eq!(turn.due(), Some(1000));
    let local = true;
    let forced = false;
    assert_eq!(turn.tick(1000), [start(Step::Poll { forced, local })]);
    assert!(!turn.state.ask_local);
}

#[test]
fn tips_are_remembered_and_late_answers_are_not_listened_to() {
    let mut turn = Turn::with_a_version();
    let upstream = Some(vec!["c9".to_owned()]);
    let found = Ok(Polled::New(version(9)));
    let effects = turn.take(UpdateEvent::Polled { upstream, found });
    assert_eq!(effects, []);
    assert_eq!(turn.state.upstream, ["c9"]);
    let upstream = None;
    let found = Ok(Polled::UpToDate);
    turn.take(UpdateEvent::Polled { upstream, found });
    assert_eq!(turn.state.upstream, ["c9"]);
    for late in [
        UpdateEvent::Built(Ok(())),
        UpdateEvent::Tested(Ok(())),
        UpdateEvent::Switched(Ok(())),
        UpdateEvent::Tidied,
    ] {
        let before = turn.state.clone();
        assert_eq!(turn.take(late), []);
        assert_eq!(turn.state, before);
    }
}

#[test]
fn up_to_date_means_no_problem_until_the_next_poll() {
    let mut turn = Turn::with_a_version();
    turn.state.problem = Some("the remote is away".into());
    turn.state.failures = 3;
    turn.state.behind_since = Some(seconds(1));
    turn.state.looked = seconds(1);
    turn.state.urgency = Urgency::Asked;
    turn.state.give_up = Some(seconds(1));
    assert_eq!(turn.polled(Ok(Polled::UpToDate)), []);
    let mut expected = Turn::with_a_version().state;
    expected.due = Some(seconds(1063));
    assert_eq!(turn.state, expected);
}

#[test]
fn without_updates_nothing_is_polled_but_for_a_first_version() {
    let mut turn = Turn::with_a_version();
    turn.policy.updates = false;
    turn.polled(Ok(Polled::UpToDate));
    assert_eq!(turn.due(), None);
    let mut turn = Turn::first();
    turn.policy.updates = false;
    turn.polled(Err(fault(Blame::Outside)));
    assert_eq!(turn.due(), Some(1005));
}

#[test]
fn a_remote_that_is_away_is_asked_less_and_less() {
    for blame in [Blame::Outside, Blame::Machine] {
        let mut turn = Turn::with_a_version();
        let looked = turn.state.looked;
        turn.now.at = seconds(2000);
        for pause in [5, 10, 20, 40, 63, 63] {
            assert_eq!(turn.polled(Err(fault(blame))), []);
            assert_eq!(turn.due(), Some(2000 + pause));
        }
        assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
        assert_eq!(turn.state.failures, 6);
        assert_eq!(turn.state.looked, looked, "nothing was seen");
    }
}

#[test]
fn a_refusal_is_written_down_once() {
    let mut turn = Turn::with_a_version();
    let refusal = || fault(Blame::Refused).on("c2");
    let note = record(Outcome::Refused, &version(2), 0, &refusal().to_string());
    assert_eq!(turn.polled(Err(refusal())), std::slice::from_ref(&note));
    assert_eq!(turn.due(), Some(1063));
    assert_eq!(turn.state.failures, 0);
    assert_eq!(turn.polled(Err(refusal())), []);
    turn.polled(Err(Fault::new(Blame::Outside, "the remote is away")));
    assert_eq!(turn.polled(Err(refusal())), [note]);
    // What is about no commit is in the status only.
    assert_eq!(turn.polled(Err(fault(Blame::Config))), []);
    assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
}

#[test]
fn a_new_version_is_built_and_tested() {
    let mut turn = Turn::with_a_version();
    turn.state.problem = Some("the remote was away".into());
    turn.state.give_up = Some(seconds(1));
    let effects = turn.polled(Ok(Polled::New(version(2))));
    assert_eq!(effects, [start(Step::Build(version(2)))]);
    assert_eq!(turn.state.problem, None);
    assert_eq!(turn.state.candidate(), Some(&version(2)));
    assert_eq!(turn.state.seen, seconds(1000));
    assert_eq!(turn.state.behind_since, Some(seconds(1000)));
    assert_eq!(turn.state.give_up, None);
    let effects = turn.take(UpdateEvent::Built(Ok(())));
    assert_eq!(effects, [start(Step::Test(version(2)))]);
    assert_eq!(turn.state.candidate(), Some(&version(2)));
    // Seen again after a look upstream: its turn does not move, that of a newer one does.
    turn.now.at = seconds(1100);
    turn.polled(Ok(Polled::New(version(2))));
    assert_eq!(turn.state.seen, seconds(1000));
    turn.polled(Ok(Polled::New(version(3))));
    assert_eq!(turn.state.seen, seconds(1100));
    assert_eq!(turn.state.behind_since, Some(seconds(1000)));
}

#[test]
fn local_changes_become_requested_when_they_were_asked_for() {
    let mut local = version(2);
    let commit = "own".to_owned();
    let summary = String::new();
    local.local.push(LocalChange { commit, summary });
    let mut turn = Turn::with_a_version();
    turn.polled(Ok(Polled::New(local.clone())));
    assert!(turn.state.requested.is_empty());
    turn.state.polled_local = true;
    turn.polled(Ok(Polled::New(local)));
    assert_eq!(turn.state.requested, ["own"]);
}

#[test]
fn a_rollback_of_the_operator_holds_and_a_lost_release_is_built_again() {
    for documentation in [false, true] {
        let mut turn = Turn::with_a_version();
        turn.state.hold = Some("rolled back".into());
        turn.state.failures = 2;
        let found = if documentation {
            Polled::NoRebuild(version(2))
        } else {
            Polled::New(version(2))
        };
        assert_eq!(turn.polled(Ok(found)), []);
        assert_eq!(turn.due(), Some(1063));
        assert_eq!(turn.state.failures, 0);
        assert_eq!(turn.state.accepted, Some(version(1)));
        let effects = turn.polled(Ok(Polled::New(version(1))));
        assert_eq!(effects, [start(Step::Build(version(1)))]);
    }
}

#[test]
fn the_quarantine_is_named_and_gives_way_to_force_alone() {
    let mut turn = Turn::with_a_version();
    turn.state.quarantine.add(&version(2), "crashed");
    turn.state.failures = 2;
    for urgency in [Urgency::Routine, Urgency::Asked] {
        turn.state.urgency = urgency;
        assert_eq!(turn.polled(Ok(Polled::New(version(2)))), []);
        assert_eq!(turn.due(), Some(1063));
        assert_eq!(turn.state.failures, 0);
        let problem = turn.state.problem.as_deref().unwrap();
        assert!(problem.contains("crashed"), "{problem}");
    }
    turn.state.urgency = Urgency::Forced;
    let effects = turn.polled(Ok(Polled::New(version(2))));
    assert_eq!(effects, [start(Step::Build(version(2)))]);
}

#[test]
fn documentation_is_accepted_where_it_stands() {
    let mut turn = Turn::with_a_version();
    turn.state.problem = Some("away".into());
    turn.state.failures = 1;
    turn.state.seen = seconds(990);
    turn.state.seen_release = "c9".into();
    turn.state.behind_since = Some(seconds(990));
    let mut docs = version(2);
    docs.summary = "Words".into();
    docs.signer = Some("A".into());
    docs.left_out.push(LocalChange {
        commit: "own".into(),
        summary: String::new(),
    });
    let effects = turn.polled(Ok(Polled::NoRebuild(docs.clone())));
    let reason = "no file of the build changed";
    let result = Outcome::AcceptedWithoutRestart;
    assert_eq!(effects, [record(result, &docs, 0, reason)]);
    let mut expected = Turn::with_a_version().state;
    expected.accepted = Some(Version {
        release: "c1".into(),
        source: "c1".into(),
        ..docs
    });
    expected.trusted = Some("c2".into());
    expected.seen = seconds(1000);
    expected.due = Some(seconds(1063));
    assert_eq!(turn.state, expected);
}

#[test]
fn what_the_code_can_not_help_is_tried_again_later_and_later() {
    for blame in [Blame::Outside, Blame::Machine] {
        let mut turn = Turn::with_a_version();
        for (failures, pause) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80)] {
            // Asked for, so that it does not wait.
            turn.state.urgency = Urgency::Asked;
            turn.polled(Ok(Polled::New(version(2))));
            assert_eq!(turn.take(UpdateEvent::Built(Err(fault(blame)))), []);
            let retry = turn.state.retry.clone().unwrap();
            assert_eq!(
                (retry.failures, retry.at),
                (failures, seconds(1000 + pause))
            );
            assert_eq!(turn.due(), Some(1000 + pause.min(63)));
            assert_eq!(turn.state.failures, failures);
            assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
        }
        assert!(turn.quarantined().is_empty());
        // A routine poll finds it too early, and says still what is wrong.
        assert_eq!(turn.polled(Ok(Polled::New(version(2)))), []);
        assert_eq!(turn.due(), Some(1063));
        turn.now.at = seconds(1070);
        assert_eq!(turn.polled(Ok(Polled::New(version(2)))), []);
        assert_eq!(turn.due(), Some(1080));
        assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
        turn.now.at = seconds(1080);
        let effects = turn.polled(Ok(Polled::New(version(2))));
        assert_eq!(effects, [start(Step::Build(version(2)))]);
        assert_eq!(turn.state.problem.as_deref(), Some("bad luck"));
        // Another version has another chance, and counts from one.
        turn.now.at = seconds(1000);
        let effects = turn.polled(Ok(Polled::New(version(3))));
        assert_eq!(effects, [start(Step::Build(version(3)))]);
        assert_eq!((&turn.state.retry, &turn.state.problem), (&None, &None));
        turn.take(UpdateEvent::Built(Err(fault(blame))));
        assert_eq!(turn.state.retry.as_ref().unwrap().failures, 1);
    }
}

#[test]
fn the_code_is_quarantined_for_what_it_did() {
    let mut signed = version(2);
    signed.signer = Some("A".into());
    for blame in [Blame::Code, Blame::Refused] {
        for tested in [false, true] {
            let mut turn = Turn::with_a_version();
            turn.polled(Ok(Polled::New(signed.clone())));
            turn.now.at = seconds(1007);
            let effects = if tested {
                turn.take(UpdateEvent::Built(Ok(())));
                turn.take(UpdateEvent::Tested(Err(fault(blame))))
            } else {
                turn.take(UpdateEvent::Built(Err(fault(blame))))
            };
            let mut noted = signed.clone();
            // Nobody signed what is refused for its signature.
            noted.signer = noted.signer.filter(|_| blame == Blame::Code);
            let note = record(Outcome::Failed, &noted, 7, "bad luck");
            assert_eq!(effects, [note]);
            assert_eq!(turn.quarantined(), ["c2"]);
            assert_eq!(turn.due(), Some(1070));
            assert_eq!(turn.state.failures, 0);
        }
    }
}

#[test]
fn a_version_with_local_changes_has_no_signer_in_the_history() {
    let mut local = version(2);
    local.signer = Some("A".into());
    local.local.push(LocalChange {
        commit: "own".into(),
        summary: String::new(),
    });
    let mut turn = Turn::with_a_version();
    turn.polled(Ok(Polled::New(local.clone())));
    let effects = turn.take(UpdateEvent::Built(Err(fault(Blame::Code))));
    local.signer = None;
    assert_eq!(effects, [record(Outcome::Failed, &local, 0, "bad luck")]);
}

#[test]
fn a_build_that_was_interrupted_begins_again_with_a_poll() {
    for phase in [
        Phase::Idle,
        Phase::Polling,
        Phase::Building {
            candidate: version(2),
        },
        Phase::Testing {
            candidate: version(2),
        },
        Phase::Waiting {
            candidate: version(2),
        },
    ] {
        let mut turn = Turn::with_a_version();
        turn.state.phase = phase.clone();
        assert_eq!(turn.take(UpdateEvent::Started), [run("c1")], "{phase:?}");
        assert_eq!(
            (turn.state.phase.clone(), turn.due()),
            (Phase::Idle, Some(1000))
        );
    }
    assert_eq!(Turn::first().take(UpdateEvent::Started), []);
}

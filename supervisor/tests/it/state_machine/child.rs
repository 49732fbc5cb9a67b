//! The rules of the child, one by one.

use std::time::Duration;

use supervisor::child::{
    state::{
        ChildEffect, ChildEvent, ChildNow, ChildPolicy, ChildState, DownReason, RunningChild, Stage,
    },
    step::step,
};

/// The exit code of a wrong configuration.
const CONFIG_EXIT: i32 = 78;

const POLICY: ChildPolicy = ChildPolicy {
    stop_timeout: Duration::from_secs(40),
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A child at a time of its own.
#[derive(Default)]
struct Life {
    state: ChildState,
    now: ChildNow,
}

impl Life {
    fn take(&mut self, event: ChildEvent) -> Vec<ChildEffect> {
        let (state, effects) = step(self.state.clone(), event, &self.now, &POLICY);
        self.state = state;
        effects
    }

    fn want(&mut self, release: &str) -> Vec<ChildEffect> {
        self.take(ChildEvent::Want(release.to_owned()))
    }

    fn exit(&mut self, code: i32) -> Vec<ChildEffect> {
        let how = format!("code {code}");
        let code = Some(code);
        self.take(ChildEvent::Exited { how, code })
    }

    fn until(&mut self, at: Duration) -> Vec<ChildEffect> {
        self.now.at = at;
        self.take(ChildEvent::Tick)
    }

    /// The child of release `a`, as process 7, at second 100.
    fn of_a() -> Self {
        let mut life = Self::default();
        life.now.at = seconds(100);
        assert_eq!(life.want("a"), [ChildEffect::Spawn("a".into())]);
        let started = ChildEffect::Started("a".into());
        assert_eq!(life.take(ChildEvent::Spawned(7)), [started]);
        life
    }

    /// One that has failed, and all of its group is gone.
    fn failed(mut self, code: i32) -> Self {
        self.exit(code);
        assert_eq!(self.take(ChildEvent::GroupEmpty), []);
        self
    }
}

fn failed(release: &str, how: &str) -> ChildEffect {
    ChildEffect::Failed {
        release: release.into(),
        how: how.into(),
    }
}

#[test]
fn a_wanted_release_is_started_once_and_is_ready_once() {
    let mut life = Life::of_a();
    assert_eq!(life.want("a"), []);
    let child = RunningChild {
        pid: 7,
        release: "a".into(),
        since: seconds(100),
        ready: false,
    };
    assert_eq!(life.state.running(), Some(&child));
    assert_eq!(life.state.up(), Some("a"));
    assert_eq!(life.state.due(seconds(100)), None);
    let ready = ChildEffect::Ready("a".into());
    assert_eq!(life.take(ChildEvent::Ready), [ready]);
    assert_eq!(life.take(ChildEvent::Ready), []);
    assert!(!life.state.is_halted());
}

#[test]
fn another_release_starts_when_the_last_process_of_the_old_one_is_gone() {
    let mut life = Life::of_a();
    assert_eq!(life.want("b"), [ChildEffect::Terminate(7)]);
    assert_eq!(life.state.running().map(|child| child.pid), Some(7));
    assert_eq!(life.state.up(), None);
    assert_eq!(life.exit(0), [ChildEffect::KillGroup(7)]);
    assert_eq!(life.state.running(), None);
    let look = seconds(100) + Duration::from_millis(20);
    assert_eq!(life.state.due(seconds(100)), Some(look));
    assert_eq!(life.until(look), [ChildEffect::KillGroup(7)]);
    let spawn = ChildEffect::Spawn("b".into());
    assert_eq!(life.take(ChildEvent::GroupEmpty), [spawn]);
    let (restarts, failing) = (life.state.restarts, life.state.failing());
    assert_eq!((restarts, failing), (0, None));
}

#[test]
fn what_does_not_end_is_killed_and_killed_again() {
    let mut life = Life::of_a();
    life.want("b");
    assert_eq!(life.state.due(seconds(100)), Some(seconds(140)));
    // Time that it asks for is given, never taken away.
    life.take(ChildEvent::Extend(seconds(10)));
    assert_eq!(life.state.due(seconds(100)), Some(seconds(140)));
    life.take(ChildEvent::Extend(seconds(60)));
    assert_eq!(life.state.due(seconds(100)), Some(seconds(160)));
    assert_eq!(life.until(seconds(159)), []);
    assert_eq!(life.until(seconds(160)), [ChildEffect::KillGroup(7)]);
    assert_eq!(life.state.due(seconds(160)), Some(seconds(161)));
    assert_eq!(life.until(seconds(161)), [ChildEffect::KillGroup(7)]);
    assert_eq!(life.take(ChildEvent::Kill), [ChildEffect::KillGroup(7)]);
}

#[test]
fn kill_reaches_what_runs_and_nothing_else() {
    assert_eq!(Life::default().take(ChildEvent::Kill), []);
    let mut life = Life::of_a();
    assert_eq!(life.take(ChildEvent::Kill), [ChildEffect::KillGroup(7)]);
    let mut life = life.failed(1);
    assert_eq!(life.take(ChildEvent::Kill), []);
}

#[test]
fn pauses_grow_with_failures_in_a_row_and_the_reason_is_named() {
    let mut life = Life::of_a();
    let effects = life.exit(1);
    assert_eq!(effects, [failed("a", "code 1"), ChildEffect::KillGroup(7)]);
    life.take(ChildEvent::GroupEmpty);
    assert_eq!(life.state.due(seconds(100)), Some(seconds(101)));
    assert_eq!(life.state.failing(), Some("code 1"));
    assert_eq!(life.until(seconds(100)), []);
    let spawn = [ChildEffect::Spawn("a".into())];
    assert_eq!(life.until(seconds(101)), spawn);
    life.take(ChildEvent::Spawned(8));
    // Once is nothing to speak of while it runs again, twice is.
    assert_eq!(life.state.failing(), None);
    let mut life = life.failed(1);
    assert_eq!(life.state.due(seconds(101)), Some(seconds(103)));
    assert_eq!(life.until(seconds(103)), spawn);
    life.take(ChildEvent::Spawned(9));
    assert_eq!(life.state.failing(), Some("code 1"));
    assert_eq!(life.state.restarts, 2);
    // After a long run it begins anew.
    life.now.at = seconds(163);
    let life = life.failed(1);
    assert_eq!(life.state.due(seconds(163)), Some(seconds(164)));
}

#[test]
fn a_wish_of_the_operator_forgets_the_failures() {
    let life = Life::of_a().failed(1);
    let spawn = [ChildEffect::Spawn("a".into())];
    for wrong in [1, CONFIG_EXIT] {
        let mut life = Life {
            state: life.state.clone(),
            now: life.now,
        };
        assert_eq!(life.until(seconds(101)), spawn);
        life.take(ChildEvent::Spawned(8));
        let mut life = life.failed(wrong);
        assert_eq!(life.take(ChildEvent::Restart), spawn);
        life.take(ChildEvent::Spawned(9));
        let life = life.failed(1);
        assert_eq!(life.state.due(seconds(101)), Some(seconds(102)));
    }
}

#[test]
fn a_wrong_configuration_waits_for_the_operator() {
    let mut life = Life::of_a().failed(CONFIG_EXIT);
    assert_eq!(life.state.stage, Stage::Down(DownReason::Misconfigured));
    assert_eq!(life.state.failing(), Some("code 78"));
    assert_eq!(life.state.due(seconds(100)), None);
    assert_eq!(life.until(seconds(10_000)), []);
    // Another release may read it otherwise.
    assert_eq!(life.want("b"), [ChildEffect::Spawn("b".into())]);
}

#[test]
fn a_restart_ends_what_runs_and_is_asked_for_once() {
    let mut life = Life::default();
    life.want("a");
    assert_eq!(life.take(ChildEvent::Restart), [], "it is starting");
    life.take(ChildEvent::Spawned(7));
    let terminate = [ChildEffect::Terminate(7)];
    assert_eq!(life.take(ChildEvent::Restart), terminate);
    assert_eq!(life.take(ChildEvent::Restart), [], "it is ending");
    life.exit(0);
    assert_eq!(life.take(ChildEvent::Restart), [], "its group is ending");
    let spawn = [ChildEffect::Spawn("a".into())];
    assert_eq!(life.take(ChildEvent::GroupEmpty), spawn);
}

#[test]
fn nothing_starts_after_a_halt() {
    let halted = |mut life: Life| {
        assert!(life.state.is_halted());
        assert_eq!(life.want("c"), []);
        assert_eq!(life.take(ChildEvent::Restart), []);
        assert!(life.state.is_halted());
    };
    let mut up = Life::of_a();
    assert_eq!(up.take(ChildEvent::Halt), [ChildEffect::Terminate(7)]);
    up.exit(0);
    assert!(!up.state.is_halted(), "its group is ending");
    assert_eq!(up.take(ChildEvent::GroupEmpty), []);
    halted(up);

    let mut paused = Life::of_a().failed(1);
    assert_eq!(paused.take(ChildEvent::Halt), []);
    halted(paused);

    let mut sweeping = Life::of_a();
    sweeping.want("b");
    sweeping.exit(0);
    sweeping.take(ChildEvent::Halt);
    assert_eq!(sweeping.want("c"), []);
    assert_eq!(sweeping.take(ChildEvent::GroupEmpty), []);
    halted(sweeping);

    let mut starting = Life::default();
    starting.want("a");
    assert_eq!(starting.take(ChildEvent::Halt), []);
    let effects = starting.take(ChildEvent::Spawned(7));
    let started = ChildEffect::Started("a".into());
    assert_eq!(effects, [started, ChildEffect::Terminate(7)]);

    let mut failing = Life::default();
    failing.want("a");
    failing.take(ChildEvent::Halt);
    let how = "no such file".to_owned();
    failing.take(ChildEvent::SpawnFailed { how, lost: false });
    halted(failing);
}

#[test]
fn a_silent_child_is_killed_and_its_end_says_why() {
    assert_eq!(Life::default().take(ChildEvent::Hung), []);
    let mut life = Life::of_a();
    assert_eq!(life.take(ChildEvent::Hung), [ChildEffect::KillGroup(7)]);
    let effects = life.exit(137);
    let why = "fell silent (no WATCHDOG=1) and was killed";
    assert_eq!(effects, [failed("a", why), ChildEffect::KillGroup(7)]);
    life.take(ChildEvent::GroupEmpty);
    life.until(seconds(101));
    life.take(ChildEvent::Spawned(8));
    let effects = life.exit(1);
    assert_eq!(effects, [failed("a", "code 1"), ChildEffect::KillGroup(8)]);
}

#[test]
fn what_can_not_be_started_is_tried_again_or_built_again() {
    for lost in [false, true] {
        let mut life = Life::default();
        life.want("a");
        let how = "no such file".to_owned();
        let effects = life.take(ChildEvent::SpawnFailed { how, lost });
        let mut expected = vec![failed("a", "no such file")];
        expected.extend(lost.then_some(ChildEffect::Lost));
        assert_eq!(effects, expected);
        assert_eq!(life.state.due(seconds(0)), Some(seconds(1)));
        assert_eq!(life.state.restarts, 1);
    }
}

#[test]
fn what_is_no_longer_wanted_when_it_starts_makes_room() {
    let mut life = Life::default();
    life.want("a");
    assert_eq!(life.want("b"), [], "the answer is on its way");
    let how = "no such file".to_owned();
    let effects = life.take(ChildEvent::SpawnFailed { how, lost: false });
    let spawn = ChildEffect::Spawn("b".into());
    assert_eq!(effects, [failed("a", "no such file"), spawn]);
    life.want("c");
    let started = ChildEffect::Started("b".into());
    let effects = life.take(ChildEvent::Spawned(8));
    assert_eq!(effects, [started, ChildEffect::Terminate(8)]);
}

#[test]
fn a_child_left_behind_is_taken_over() {
    let adopted = ChildEvent::Adopted {
        pid: 9,
        release: "a".into(),
    };
    let ready = ChildEffect::Ready("a".into());
    let mut life = Life::default();
    assert_eq!(life.take(adopted.clone()), [ready]);
    assert_eq!(life.want("a"), []);
    assert_eq!(life.take(ChildEvent::Ready), [], "it has been ready");
    assert_eq!(life.want("b"), [ChildEffect::Terminate(9)]);
    // It ends before anything is wanted: the failure is its release's.
    let mut life = Life::default();
    life.take(adopted);
    let effects = life.exit(1);
    assert_eq!(effects, [failed("a", "code 1"), ChildEffect::KillGroup(9)]);
    assert_eq!(life.take(ChildEvent::GroupEmpty), []);
    assert_eq!(life.want("b"), [ChildEffect::Spawn("b".into())]);
}

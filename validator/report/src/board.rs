//! The board: what the validator says of itself at this moment, to its supervisor and to people.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    Failure, clock, notify,
    status::{self, Health, SafePoint},
};
use tokio::sync::watch;

mod devices;

use crate::{
    rules::{self, Held},
    status::{Activity, Cause, Details, Problem, RoundProgress, SCHEMA, Status},
};

/// The board: tasks write on it, the admin task reads it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    content: Mutex<BoardContent>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct BoardContent {
    details: Details,
    /// Reasons why a restart would hurt, each with the time until which at the latest.
    holds: BTreeMap<Hold, (String, Option<u64>)>,
    /// Since when each condition of the health rules holds.
    held: Held,
}

/// Why a restart would hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    SettingWeights,
    /// Weights are about to be due.
    WeightsDue,
}

/// The right to say that something is wrong, and the duty to end it. There is one for each cause.
#[derive(Debug)]
pub struct Alarm {
    board: Board,
    cause: Cause,
}

/// Every alarm of a board, to be handed to those who own the causes.
#[derive(Debug)]
pub struct Alarms {
    pub chain: Alarm,
    pub chain_lag: Alarm,
    pub subnet: Alarm,
    pub registration: Alarm,
    pub commitments: Alarm,
    pub old_chain_data: Alarm,
    pub state: Alarm,
    pub tracker: Alarm,
    pub models: Alarm,
    pub store: Alarm,
    pub samples: Alarm,
    pub step: Alarm,
    pub tokenizer: Alarm,
    pub losses: Alarm,
    pub weights: Alarm,
    pub weights_age: Alarm,
    pub reveal: Alarm,
    pub twin: Alarm,
    pub wandb: Alarm,
    pub publish: Alarm,
}

impl Board {
    /// Makes a board that begins with these details, and the alarms that belong to it.
    pub fn new(details: Details) -> (Self, Alarms) {
        let details = Details {
            schema: SCHEMA,
            ..details
        };
        let board = Self(Arc::new(Shared {
            content: Mutex::new(BoardContent {
                details,
                holds: BTreeMap::new(),
                held: Held::new(),
            }),
            changes: watch::Sender::default(),
        }));
        let alarm = |cause| Alarm {
            board: board.clone(),
            cause,
        };
        let alarms = Alarms {
            chain: alarm(Cause::Chain),
            chain_lag: alarm(Cause::ChainLag),
            subnet: alarm(Cause::Subnet),
            registration: alarm(Cause::Registration),
            commitments: alarm(Cause::Commitments),
            old_chain_data: alarm(Cause::OldChainData),
            state: alarm(Cause::State),
            tracker: alarm(Cause::Tracker),
            models: alarm(Cause::Models),
            store: alarm(Cause::Store),
            samples: alarm(Cause::Samples),
            step: alarm(Cause::Step),
            tokenizer: alarm(Cause::Tokenizer),
            losses: alarm(Cause::Losses),
            weights: alarm(Cause::Weights),
            weights_age: alarm(Cause::WeightsAge),
            reveal: alarm(Cause::Reveal),
            twin: alarm(Cause::Twin),
            wandb: alarm(Cause::Wandb),
            publish: alarm(Cause::Publish),
        };
        (board, alarms)
    }

    /// Notes what is known for people and dashboards.
    pub fn note(&self, change: impl FnOnce(&mut Details)) {
        self.change(|content| change(&mut content.details));
    }

    /// Returns what is known, with the conditions that hold among the problems.
    pub fn details(&self) -> Details {
        let mut content = self.lock();
        let mut details = content.details.clone();
        rules::apply(&mut details, &mut content.held, clock::now());
        details
    }

    /// Says what is being done.
    pub fn activity(&self, activity: Activity) {
        let text = activity.to_string();
        let changed = self.change(|content| {
            if !matches!(activity, Activity::Evaluating { .. }) {
                content.details.round = None;
            }
            content.details.activity = activity;
        });
        if changed {
            notify::status(&text);
        }
    }

    /// Says that the evaluation of so many models begins.
    pub fn begin_round(&self, of: usize) {
        self.note(|details| {
            details.round = Some(RoundProgress {
                done: 0,
                of,
                began_at: clock::now(),
                done_at: None,
            });
        });
    }

    /// Says that one more model of the round is done.
    pub fn model_done(&self) {
        self.note(|details| {
            if let Some(round) = &mut details.round {
                round.done += 1;
                round.done_at = Some(clock::now());
            }
        });
    }

    /// Says that the validator has ended, and why. Nothing but the next start ends that.
    pub fn ended(&self, failure: Option<&Failure>) {
        self.activity(Activity::Stopped);
        let Some(failure) = failure else { return };
        let failed = Alarm {
            board: self.clone(),
            cause: Cause::Failure,
        };
        failed.raise(Health::Red, failure);
        self.note(|details| {
            if details.start.ready_at.is_none() {
                details.start.last_error = Some(failure.to_string());
            }
        });
    }

    /// Says that a restart would hurt now, at the latest until `until` (seconds since 1970).
    pub fn hold(&self, hold: Hold, reason: impl Into<String>, until: Option<u64>) {
        self.change(|content| content.holds.insert(hold, (reason.into(), until)));
    }

    pub fn release(&self, hold: Hold) {
        self.change(|content| content.holds.remove(&hold));
    }

    /// Returns a receiver that sees every change.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Returns the board as the status file has it, which is renewed at least `every` so often.
    pub fn status(&self, version: &str, every: Duration) -> Status {
        let details = self.details();
        let holds = self.lock().holds.clone();
        let health = details.alarms.values().map(|problem| problem.health).max();
        let reasons: Vec<&str> = holds.values().map(|(reason, _)| reason.as_str()).collect();
        Status {
            format: status::FORMAT,
            pid: std::process::id(),
            version: version.to_owned(),
            written_at: clock::unix_seconds(),
            renewed_every: Some(every.as_secs()),
            phase: match details.round {
                Some(round) => format!("{}, {round}", details.activity),
                None => details.activity.to_string(),
            },
            health: health.unwrap_or(Health::Green),
            problems: details
                .alarms
                .values()
                .map(|problem| problem.text.clone())
                .collect(),
            restart: SafePoint {
                safe: holds.is_empty(),
                reason: reasons.join("; "),
                until: holds.values().filter_map(|(_, until)| *until).max(),
            },
            details,
        }
    }

    /// Changes the content; returns whether that made a difference.
    fn change<T>(&self, change: impl FnOnce(&mut BoardContent) -> T) -> bool {
        let mut content = self.lock();
        let before = content.clone();
        change(&mut content);
        let changed = *content != before;
        drop(content);
        if changed {
            self.0.changes.send_replace(());
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, BoardContent> {
        self.0
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    /// Says that something is wrong, until [`Alarm::end`]. What is wrong already keeps its
    /// beginning.
    pub fn raise(&self, health: Health, text: impl fmt::Display) {
        let (text, now) = (text.to_string(), clock::now());
        self.board.note(|details| {
            let problem = details.alarms.entry(self.cause).or_insert_with(|| Problem {
                health,
                since: now,
                text: String::new(),
            });
            problem.health = health;
            problem.text = text;
        });
    }

    /// Says that it is over.
    pub fn end(&self) {
        self.board.note(|details| {
            details.alarms.remove(&self.cause);
        });
    }

    /// Returns whether it was raised and has not ended.
    pub fn is_raised(&self) -> bool {
        let content = self.board.lock();
        content.details.alarms.contains_key(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use shared::Exit;

    use super::*;
    use crate::status::Start;

    const EVERY: Duration = Duration::from_secs(15);

    impl Alarms {
        fn all(&self) -> Vec<&Alarm> {
            let Self {
                chain,
                chain_lag,
                subnet,
                registration,
                commitments,
                old_chain_data,
                state,
                tracker,
                models,
                store,
                samples,
                step,
                tokenizer,
                losses,
                weights,
                weights_age,
                reveal,
                twin,
                wandb,
                publish,
            } = self;
            vec![
                chain,
                chain_lag,
                subnet,
                registration,
                commitments,
                old_chain_data,
                state,
                tracker,
                models,
                store,
                samples,
                step,
                tokenizer,
                losses,
                weights,
                weights_age,
                reveal,
                twin,
                wandb,
                publish,
            ]
        }
    }

    #[test]
    fn every_cause_has_one_alarm_which_begins_and_ends_it() {
        let (board, alarms) = Board::new(Details::default());
        let causes = alarms.all().into_iter().map(|alarm| alarm.cause);
        // The end of the process is the board's own.
        let causes: Vec<Cause> = causes.chain([Cause::Failure]).collect();
        let alarms_of = |rule: &&rules::Rule| matches!(rule.condition, rules::Condition::Alarm);
        let rules = rules::RULES.iter().filter(alarms_of);
        assert_eq!(causes, rules.map(|rule| rule.cause).collect::<Vec<_>>());
        for alarm in alarms.all() {
            let text = alarm.cause.to_string();
            alarm.raise(Health::Red, &text);
            let status = board.status("test", EVERY);
            assert_eq!(status.health, Health::Red);
            assert_eq!(status.problems, [text]);
            alarm.end();
            assert_eq!(board.status("test", EVERY).health, Health::Green);
        }
    }

    #[test]
    fn a_failed_start_is_told_and_counted_until_one_becomes_ready() {
        let start = |before: Option<&Details>| {
            let (board, _) = Board::new(Details {
                start: Start::after(before),
                ..Details::default()
            });
            board
        };
        let first = start(None);
        first.ended(Some(&Failure::new(Exit::TryLater, "the chain is away")));
        let left = first.status("test", EVERY);
        assert_eq!(left.health, Health::Red);
        assert_eq!(left.problems, ["the chain is away"]);
        let second = start(Some(&left.details)).status("test", EVERY);
        assert_eq!(second.health, Health::Green);
        assert_eq!(second.details.start.attempt, 2);
        let error = second.details.start.last_error.as_deref();
        assert_eq!(error, Some("the chain is away"));

        let ready = start(Some(&second.details));
        ready.note(|details| details.start.ready_at = Some(clock::now()));
        ready.ended(Some(&Failure::new(Exit::Machine, "the GPU is gone")));
        let left = ready.status("test", EVERY);
        let next = start(Some(&left.details)).status("test", EVERY);
        assert_eq!(
            next.details.start,
            Start {
                attempt: 1,
                ..Start::default()
            }
        );
    }

    #[test]
    fn a_problem_keeps_its_beginning_and_only_a_change_is_told() {
        let (board, alarms) = Board::new(Details::default());
        let mut changes = board.subscribe();
        alarms.chain.raise(Health::Yellow, "away");
        assert!(changes.has_changed().is_ok_and(|changed| changed));
        changes.mark_unchanged();
        alarms.chain.raise(Health::Yellow, "away");
        assert!(changes.has_changed().is_ok_and(|changed| !changed));
        let since = board.status("test", EVERY).details.alarms[&Cause::Chain].since;
        alarms.chain.raise(Health::Red, "away for long");
        let problem = &board.status("test", EVERY).details.alarms[&Cause::Chain];
        assert_eq!((problem.since, problem.health), (since, Health::Red));
    }
}

//! The index over real journals: what it says, what it survives, how it is bounded.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, fs, path::Path};

use index::{INDEX, Index, IndexError, KEPT_LOSSES, KEPT_STEPS, Presence};

use report::{
    Journal, StepRecord,
    events::{Event, EventLog, Happening, TrustReading},
    status::Cause,
    step_record::{self, Engine, Generated, ModelRow, Outcome, Receipt, Refusal, Rules, Samples},
};
use rusqlite::Connection;
use shared::{file::FileLock, status::Health};
use subnet::{CompetitionId, Fault, Hotkey, Netuid, Parameters, Real, Uid};

const SCRIPT: &str = "<script>alert(1)</script>/\u{202e}\u{1f600}";

fn model(uid: u16, outcome: Outcome, losses: &[f64]) -> ModelRow {
    ModelRow {
        hotkey: Hotkey([uid as u8; 32]),
        block: 100 + u64::from(uid),
        model: format!("{SCRIPT}:{uid}"),
        content: format!("content {uid}"),
        parameters: 7,
        tokenizer: String::new(),
        outcome,
        losses: losses.iter().copied().map(Real).collect(),
        score: score::WinRow {
            wins: u32::from(uid),
            matches: 10,
            win_rate: f64::from(uid) / 10.0,
        },
        step_weight: Real(0.0),
        weight: Real(f64::from(uid) / 100.0),
        seconds: 1.0,
    }
}

fn record(step: u64) -> StepRecord {
    let parameters = Parameters::embedded();
    let evaluated = |uid, shift: f64| {
        let losses: Vec<f64> = (0..10)
            .map(|sample| (f64::from(uid) * f64::from(sample + 1)).sin() + 3.0 + shift)
            .collect();
        model(uid, Outcome::Evaluated, &losses)
    };
    let mut models = BTreeMap::new();
    for uid in 1..6 {
        models.insert(Uid(uid), evaluated(uid, 0.0));
    }
    // Nearly uid 1, and broken, and a copy, and at fault.
    models.insert(
        Uid(6),
        ModelRow {
            block: 200,
            ..evaluated(1, 1e-4)
        },
    );
    models.insert(
        Uid(7),
        model(7, Outcome::Evaluated, &[f64::NAN, f64::INFINITY]),
    );
    models.insert(Uid(8), model(8, Outcome::CopyOf(Uid(1)), &[]));
    let fault = Outcome::Failed(Fault::model("the norm of q_proj is 5121"));
    models.insert(Uid(9), model(9, fault, &[f64::INFINITY; 10]));
    StepRecord {
        format: step_record::FORMAT,
        version: "1.2.3".into(),
        netuid: Netuid(6),
        hotkey: Hotkey([0; 32]),
        step,
        competition: CompetitionId::from(if step.is_multiple_of(2) { "l3" } else { "s1" }),
        block: 1000 + step,
        block_hash: "0x0".into(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::from_second(step as i64).unwrap(),
        rules: Rules::of(&parameters, 2, 0.5),
        samples: Samples {
            digest: format!("digest {step}"),
            sources: vec!["hf:a/b".into()],
            ids: vec!["x".into(); 10],
            ..Samples::default()
        },
        engine: Engine::default(),
        plans: BTreeMap::new(),
        models,
        refused: vec![Refusal {
            uid: Uid(77),
            hotkey: Hotkey([77; 32]),
            block: 50,
            model: SCRIPT.into(),
            reason: "its hash is not what it says".into(),
        }],
        weights_before: vec![],
        weights_after: vec![],
        kept: vec![Uid(5)],
        generated: [(
            Uid(1),
            Generated {
                prompt: SCRIPT.into(),
                response: "\u{1f600}".repeat(3000),
                truth: "yes".into(),
            },
        )]
        .into(),
        receipt: Some(Receipt {
            block: 900 + step / 4,
            extrinsic: "0xabc".into(),
            attempts: 1,
            stored: vec![(Uid(5), 65535)],
        }),
        sandbox: None,
        timings: [("evaluate".to_owned(), 2.0)].into(),
    }
}

fn write(folder: &Path, rotate_at: u64, steps: impl IntoIterator<Item = u64>) {
    let journal = Journal::open(&folder.join("records"), rotate_at, 1000).unwrap();
    for step in steps {
        journal.append(&record(step), |_| [0; 64]).unwrap();
    }
}

/// Everything the index answers, as text.
fn answers(index: &Index) -> String {
    let views = serde_json::json!({
        "steps": index.steps(None, 1000).unwrap(),
        "leaders": index.leaders().unwrap(),
        "changes": index.newest_changes().unwrap(),
        "uid": index.verdicts(Uid(3), 1000).unwrap(),
        "refusals": index.refusals(None, 1000).unwrap(),
        "faults": index.faults(1000).unwrap(),
        "sets": index.weight_sets(1000).unwrap(),
        "health": index.health(1000).unwrap(),
        "trust": index.trust(1000).unwrap(),
        "copies": index.behavioral_copies(None, 5).unwrap(),
    });
    serde_json::to_string_pretty(&views).unwrap()
}

#[test]
fn an_index_that_grew_is_one_that_was_made_at_once() {
    for rotate_at in [1 << 30, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        for step in 0..12 {
            write(dir.path(), rotate_at, [step]);
            let index = Index::open(dir.path()).unwrap();
            assert_eq!(index.rebuilt(), None);
            assert_eq!(index.steps(None, 99).unwrap().len() as u64, step + 1);
        }
        let grown = answers(&Index::open(dir.path()).unwrap());
        fs::remove_file(dir.path().join(INDEX)).unwrap();
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(answers(&index), grown);
        assert_eq!(index.rebuilt(), None, "a first index is not news");
    }
}

#[test]
fn views_say_what_the_records_say() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, 0..4);
    let index = Index::open(dir.path()).unwrap();
    let leaders = index.leaders().unwrap();
    let names: Vec<_> = leaders
        .iter()
        .map(|leaders| {
            (
                leaders.last.competition.as_str(),
                leaders.last.step,
                leaders.before,
            )
        })
        .collect();
    assert_eq!(names, [("l3", 2, Some(0)), ("s1", 3, Some(1))]);
    let standings = &leaders[0].standings;
    let of = |uid: u16| standings.iter().find(|row| row.uid == Uid(uid)).unwrap();
    assert_eq!(of(9).rank, Some(1));
    assert_eq!(of(8).why, "copy of uid 1: not evaluated");
    assert_eq!(of(7).why, "2 of 2 losses are not finite");
    assert!(of(7).loss.0.is_nan() && of(9).loss.0.is_infinite());
    assert_eq!(of(9).why, "model at fault: the norm of q_proj is 5121");
    assert_eq!(of(5).loss_before, Some(of(5).loss));
    assert!(
        of(5).model.contains("<script>"),
        "it is shown by others, who escape it"
    );
    let refusals = index.refusals(Some(Uid(77)), 9).unwrap();
    assert_eq!(
        (
            refusals.len(),
            refusals[0].first_step,
            refusals[0].last_step
        ),
        (1, 0, 3)
    );
    let report = &index.behavioral_copies(Some(2), 3).unwrap()[0];
    let near: Vec<_> = report.pairs.iter().filter(|pair| pair.near).collect();
    assert_eq!(near.len(), 1);
    assert_eq!((near[0].first, near[0].second), (Uid(1), Uid(6)));
    let answers = index.answers(2).unwrap().unwrap();
    assert_eq!(
        (answers.prompt.as_str(), answers.truth.as_str()),
        (SCRIPT, "yes")
    );
    assert_eq!(answers.answers[&Uid(1)].chars().count(), 2000);
    assert_eq!(index.answers(99).unwrap(), None);
    let near = index.near_copies_of(Uid(6)).unwrap();
    assert!(near.iter().all(|pair| pair.first == Uid(1)) && !near.is_empty());
    assert_eq!(index.near_copies_of(Uid(2)).unwrap(), []);
    let losses = index.losses(2).unwrap();
    assert!(losses[&Uid(7)][0].is_nan());
    assert_eq!(index.step(Some(99)).unwrap(), None);
    assert_eq!(index.changes(0, 99).unwrap(), None);
    assert_eq!(index.weight_sets(9).unwrap().len(), 1);
}

#[test]
fn a_model_that_comes_goes_or_is_replaced_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("records"), 1 << 30, 9).unwrap();
    let mut next = record(2);
    next.models.remove(&Uid(2));
    next.models
        .insert(Uid(30), model(30, Outcome::Evaluated, &[1.0]));
    next.models.get_mut(&Uid(3)).unwrap().hotkey = Hotkey([33; 32]);
    for record in [record(0), next] {
        journal.append(&record, |_| [0; 64]).unwrap();
    }
    let changes = &Index::open(dir.path()).unwrap().newest_changes().unwrap()[0];
    let of = |uid: u16| changes.rows.iter().find(|row| row.uid == Uid(uid)).unwrap();
    assert_eq!(of(2).presence, Presence::Left);
    assert_eq!((of(2).loss[1], of(30).loss[0]), (None, None));
    assert_eq!(of(30).presence, Presence::Entered);
    assert_eq!(of(3).presence, Presence::Replaced);
    assert_eq!(of(4).presence, Presence::Stayed);
}

#[test]
fn a_damaged_index_and_one_of_another_version_or_journal_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, 0..4);
    let path = dir.path().join(INDEX);
    let whole = answers(&Index::open(dir.path()).unwrap());
    let edit = |statement: &str| Connection::open(&path).unwrap().execute_batch(statement);
    edit("PRAGMA user_version = 99").unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.rebuilt(), Some("it was of a later release (99)"));
    assert_eq!(answers(&index), whole);
    edit("PRAGMA user_version = 0").unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.rebuilt(), Some("it was of an earlier release (0)"));
    for garbage in [b"no database".to_vec(), vec![0x55; 1 << 20]] {
        shared::file::write_atomic(&path, &garbage).unwrap();
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.rebuilt(), Some("it was damaged"));
        assert_eq!(answers(&index), whole);
    }
    edit("DROP TABLE source").unwrap();
    assert_eq!(
        Index::open(dir.path()).unwrap().rebuilt(),
        Some("it was damaged")
    );
    // The records were removed, and steps are counted from 0 again.
    fs::remove_dir_all(dir.path().join("records")).unwrap();
    write(dir.path(), 1 << 30, 0..1);
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.rebuilt(), Some("it was of another journal"));
    assert_eq!(index.steps(None, 9).unwrap().len(), 1);
}

#[test]
fn half_a_line_and_a_line_that_is_no_record_wait_or_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, 0..2);
    let current = dir.path().join("records").join(report::journal::CURRENT);
    let mut text = fs::read(&current).unwrap();
    text.extend_from_slice(b"not a record\n{\"half\":");
    shared::file::write_atomic(&current, &text).unwrap();
    assert_eq!(
        Index::open(dir.path())
            .unwrap()
            .steps(None, 9)
            .unwrap()
            .len(),
        2
    );
    // The validator sets the damage aside and goes on.
    write(dir.path(), 1 << 30, [2]);
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(
        (index.rebuilt(), index.steps(None, 9).unwrap().len()),
        (None, 3)
    );
}

#[test]
fn without_records_it_says_so_and_without_steps_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Index::open(dir.path()),
        Err(IndexError::NoRecords(_))
    ));
    write(dir.path(), 1 << 30, []);
    let index = Index::open(dir.path()).unwrap();
    assert!(index.leaders().unwrap().is_empty() && index.step(None).unwrap().is_none());
    assert!(index.behavioral_copies(None, 9).unwrap().is_empty());
}

#[test]
fn who_does_not_get_the_lock_reads_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, 0..2);
    let lock = FileLock::try_acquire(&dir.path().join("index.lock"), "test").unwrap();
    assert!(matches!(Index::open(dir.path()), Err(IndexError::Building)));
    drop(lock);
    Index::open(dir.path()).unwrap();
    let _lock = FileLock::try_acquire(&dir.path().join("index.lock"), "test").unwrap();
    write(dir.path(), 1 << 30, [2]);
    assert_eq!(
        Index::open(dir.path())
            .unwrap()
            .steps(None, 9)
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn readers_have_a_whole_index_while_another_writes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, 0..1);
    let folder = dir.path();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 1..30 {
                write(folder, 5_000_000, [step]);
                if step == 15 {
                    fs::remove_file(folder.join(INDEX)).unwrap();
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < 30 {
                    // There is none for a moment when it was removed and another makes it.
                    let Ok(index) = Index::open(folder) else {
                        continue;
                    };
                    let steps = index.steps(None, 99).unwrap();
                    for head in &steps {
                        let (_, rows) = index.step(Some(head.step)).unwrap().unwrap();
                        assert_eq!(rows.len() as u64, head.models);
                    }
                    seen = steps.len();
                }
            });
        }
    });
}

#[test]
fn events_are_taken_in_once_also_when_their_file_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1 << 30, [0]);
    let records = dir.path().join("records");
    let log = EventLog::open(&records).unwrap();
    let tell = |second: i64, what| {
        let at = jiff::Timestamp::from_second(second).unwrap();
        log.append(&Event { at, what }).unwrap();
    };
    let problem = |text: &str| Happening::Problem {
        cause: Cause::Chain,
        health: Health::Red,
        text: text.into(),
    };
    let reading = |block, validator_trust| {
        Happening::Trust(TrustReading {
            block,
            validator_trust,
            consensus: vec![(Uid(1), 32768), (Uid(2), 6553)],
            ours: vec![(Uid(1), 30_000), (Uid(2), 30_000)],
        })
    };
    tell(1, problem("away"));
    tell(2, reading(10, 60_000));
    Index::open(dir.path()).unwrap();
    tell(
        3,
        Happening::Ended {
            cause: Cause::Chain,
        },
    );
    fs::rename(records.join("events.jsonl"), records.join("events.jsonl.1")).unwrap();
    tell(
        4,
        Happening::Started {
            version: "2".into(),
        },
    );
    tell(5, reading(20, 40_000));
    let index = Index::open(dir.path()).unwrap();
    let health: Vec<_> = index
        .health(9)
        .unwrap()
        .into_iter()
        .map(|row| row.health)
        .collect();
    assert_eq!(health, [None, Some("red".to_owned())]);
    assert_eq!(index.starts(9).unwrap().len(), 1);
    let trust = index.trust(9).unwrap();
    assert_eq!(trust.history.len(), 2);
    let (before, now) = trust.fall().unwrap();
    assert!(before > 0.9 && now < 0.62);
    let worst = &trust.disagreements[0];
    assert_eq!(worst.uid, Uid(2));
    assert!((worst.clipped - 0.4).abs() < 1e-3, "{worst:?}");
}

#[test]
fn it_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        1 << 30,
        [0, 1, KEPT_LOSSES, KEPT_STEPS + 1000, KEPT_STEPS + 1001],
    );
    let index = Index::open(dir.path()).unwrap();
    let steps: Vec<u64> = index
        .steps(None, 9)
        .unwrap()
        .iter()
        .map(|head| head.step)
        .collect();
    assert_eq!(steps, [KEPT_STEPS + 1001, KEPT_STEPS + 1000]);
    assert!(index.losses(KEPT_STEPS + 1).unwrap().is_empty());
    assert!(!index.losses(KEPT_STEPS + 1000).unwrap().is_empty());
    assert_eq!(index.answers(KEPT_LOSSES).unwrap(), None);
    assert!(index.answers(KEPT_STEPS + 1001).unwrap().is_some());
}

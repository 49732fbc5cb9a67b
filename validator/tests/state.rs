//! What survives a restart: the state file, the journal of steps, and what is made of both.
//!
//! Long because each damage that a file can take is told beside what becomes of it.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use report::{
    Board, Journal, StepRecord,
    journal::{self, CURRENT},
    status::{self, Cause, Details, LastStep, ModelSummary},
    step_record::{Engine, FORMAT, ModelRow, Outcome, Plan, Rules, Samples},
};
use score::WinRow;
use subnet::{CompetitionId, Fault, Hotkey, Netuid, Parameters, Real, Uid};
use validator::{
    state::{self, Identity, Kept, ModelLosses, State, StateError},
    step::scoring,
};

fn identity() -> Identity {
    Identity {
        netuid: Netuid(6),
        hotkey: Hotkey([1; 32]),
        genesis: "0xabc".into(),
    }
}

fn kept(folder: &Path, state: State) -> Kept {
    let (_, alarms) = Board::new(Details::default());
    Kept::new(folder, state, alarms.state).unwrap()
}

/// A record of a step of two models, the second of which failed as told.
fn record(step: u64, failed: Option<Fault>) -> StepRecord {
    let row = |uid: u8, outcome: Outcome, losses: Vec<Real>| ModelRow {
        hotkey: Hotkey([uid; 32]),
        block: u64::from(uid),
        model: format!("n:m{uid}:c:h:l3"),
        content: format!("content {uid}"),
        parameters: 1,
        tokenizer: "t".into(),
        outcome,
        losses,
        score: WinRow::default(),
        step_weight: Real(0.0),
        weight: Real(0.0),
        seconds: 0.0,
    };
    let second = match failed {
        Some(fault) => row(2, Outcome::Failed(fault), vec![]),
        None => row(2, Outcome::Evaluated, vec![Real(f64::NAN), Real(0.5)]),
    };
    let first = row(1, Outcome::Evaluated, vec![Real(1.0), Real(2.0)]);
    let mut record = StepRecord {
        format: FORMAT,
        version: "test".into(),
        netuid: Netuid(6),
        hotkey: Hotkey([1; 32]),
        step,
        competition: CompetitionId::from("l3"),
        block: 100 + step,
        block_hash: "0x00".into(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        rules: Rules::of(&Parameters::embedded(), 2, 0.6),
        samples: Samples::default(),
        engine: Engine::default(),
        plans: BTreeMap::new(),
        models: [(Uid(1), first), (Uid(2), second)].into(),
        refused: vec![],
        weights_before: vec![Real(0.0); 4],
        weights_after: vec![],
        kept: vec![],
        generated: BTreeMap::new(),
        receipt: None,
        sandbox: None,
        timings: BTreeMap::new(),
    };
    scoring::score(&mut record);
    record
}

#[test]
fn a_record_of_ten_models_on_400_samples_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = record(1, None);
    let row = record.models[&Uid(1)].clone();
    for uid in 1..=10 {
        let mut row = row.clone();
        // Random digits: no compression can hide a wasteful format.
        let losses = (0..400).map(|_| Real(f64::from(rand::random::<f32>()) * 4.0));
        row.losses = losses.collect();
        row.content = hex::encode(rand::random::<[u8; 32]>());
        record.models.insert(Uid(uid), row);
    }
    let id = |_| hex::encode(rand::random::<[u8; 32]>());
    record.samples.ids = (0..400).map(id).collect();
    record.weights_before = vec![Real(0.0); 256];
    scoring::score(&mut record);
    // It is compressed at once.
    let journal = Journal::open(dir.path(), 1, 10).unwrap();
    journal.append(&record, |_| [7; 64]).unwrap();
    let packed = dir.path().join("steps-0000000001-0000000001.jsonl.zst");
    let bytes = fs::metadata(packed).unwrap().len();
    assert!(bytes <= 200 << 10, "{bytes} bytes");
}

#[test]
fn the_state_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::new(identity());
    state.absorb(&record(3, None), 77);
    let engine = Engine::default();
    let losses = ModelLosses {
        tokenizer: "t".into(),
        plan: Plan::default(),
        parameters: 9,
        losses: vec![Real(0.25), Real(f64::INFINITY)],
        seconds: 1.0,
    };
    let id = CompetitionId::from("l3");
    let kept = kept(dir.path(), state);
    kept.learn(&id, "digest", &engine, "content", losses.clone())
        .unwrap();
    let back = state::read(dir.path(), &identity()).unwrap().unwrap();
    assert_eq!(back, kept.get());
    assert_eq!(back.step, 4);
    assert_eq!(back.known_losses(&id, "digest", &engine)["content"], losses);
    assert!(back.known_losses(&id, "other", &engine).is_empty());
    let other = Engine {
        dtype: "float16".into(),
        ..engine
    };
    assert!(back.known_losses(&id, "digest", &other).is_empty());
}

/// What one more model costs must not grow with the models: 256 of them on 400 samples wrote half a
/// gigabyte in each step.
#[test]
fn the_losses_of_a_model_are_appended_and_the_file_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("losses.jsonl");
    let kept = kept(dir.path(), State::new(identity()));
    let state_before = fs::read(dir.path().join("state.json")).unwrap();
    let id = CompetitionId::from("l3");
    let losses = |value: f64| ModelLosses {
        tokenizer: "t".into(),
        plan: Plan::default(),
        parameters: 9,
        losses: vec![Real(value); 400],
        seconds: 1.0,
    };
    let learn = |samples: &str, model: usize, value: f64| {
        let engine = Engine::default();
        kept.learn(&id, samples, &engine, &model.to_string(), losses(value))
            .unwrap();
    };
    let mut before = 0;
    for model in 0..256 {
        learn("first", model, 0.5);
        let now = fs::metadata(&path).unwrap().len();
        assert!(
            now - before < 4 << 10,
            "{} bytes for one model",
            now - before
        );
        before = now;
    }
    assert_eq!(
        fs::read(dir.path().join("state.json")).unwrap(),
        state_before
    );
    for samples in 0..40 {
        for model in 0..50 {
            learn(&samples.to_string(), model, 0.25);
        }
    }
    assert!(fs::metadata(&path).unwrap().len() < 2 * before);
    let known = |state: &State| state.known_losses(&id, "39", &Engine::default());
    let back = state::read(dir.path(), &identity()).unwrap().unwrap();
    assert_eq!(back, kept.get());
    assert_eq!(known(&back).len(), 50);

    // Killed in the middle of a line, and a bit flipped in another: they cost their models.
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let half = &lines.pop().unwrap()[..100];
    let damaged = format!("x{}\n{half}", lines.join("\n"));
    shared::file::write_atomic(&path, damaged.as_bytes()).unwrap();
    let back = state::read(dir.path(), &identity()).unwrap().unwrap();
    assert!(
        (48..50).contains(&known(&back).len()),
        "{}",
        known(&back).len()
    );
    // What goes on from there is whole.
    let again = self::kept(dir.path(), back.clone());
    let read = state::read(dir.path(), &identity()).unwrap().unwrap();
    assert_eq!(
        (read.known.clone(), again.get().known),
        (back.known.clone(), back.known)
    );
}

#[test]
fn losses_kept_by_the_release_before_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let state = State::new(identity());
    let mut json = serde_json::to_value(&state).unwrap();
    json["known"] = serde_json::json!({"l3": {
        "samples": "digest", "engine": Engine::default(),
        "models": {"content": {"tokenizer": "t", "plan": Plan::default(), "parameters": 9,
            "losses": [0.25], "seconds": 1.0}},
    }});
    shared::file::write_atomic(&path, json.to_string().as_bytes()).unwrap();
    let read = state::read(dir.path(), &identity()).unwrap().unwrap();
    let kept = kept(dir.path(), read);
    let id = CompetitionId::from("l3");
    let known = |state: &State| state.known_losses(&id, "digest", &Engine::default()).len();
    assert_eq!(known(&kept.get()), 1);
    let back = state::read(dir.path(), &identity()).unwrap().unwrap();
    assert_eq!(known(&back), 1);
}

#[test]
fn strikes_are_counted_by_kind_of_work_and_forgiven() {
    let mut state = State::new(identity());
    let suspect = |state: &mut State, name: &str| {
        state.suspects.insert(name.into(), "lost".into());
    };
    suspect(&mut state, "evaluate a");
    suspect(&mut state, "tokenize a");
    state.went_through("evaluate ", "evaluate b", &["evaluate c".to_owned()].into());
    assert_eq!(state.strikes["evaluate a"].len(), 1);
    assert!(state.suspects.contains_key("tokenize a"));
    for _ in 0..20 {
        suspect(&mut state, "evaluate a");
        state.went_through("evaluate ", "evaluate b", &[].into());
    }
    assert!(state.strikes["evaluate a"].len() <= 8, "they stay bounded");
    state.forgive(|name| name.ends_with('a'));
    assert_eq!((state.strikes.len(), state.suspects.len()), (1, 1));
    state.went_through("evaluate ", "evaluate a", &[].into());
    assert!(state.strikes.is_empty(), "it was not the reason");
    state.forgive(|_| false);
    assert!(state.suspects.is_empty());
}

#[test]
fn a_blank_first_line_and_leftovers_of_killed_writes_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), u64::MAX, 10).unwrap();
    journal.append(&record(7, None), |_| [7; 64]).unwrap();
    let current = dir.path().join(CURRENT);
    let text = fs::read(&current).unwrap();
    shared::file::write_atomic(&current, &[b"\n", &text[..]].concat()).unwrap();
    // Its compressed file is there already: the current one was to be removed when we were killed.
    let packed = dir.path().join("steps-0000000007-0000000007.jsonl.zst");
    let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
    shared::file::write_atomic(&packed, &zstd).unwrap();
    shared::file::write_atomic(&dir.path().join(".tmpAbC123"), b"half").unwrap();
    let journal = Journal::open(dir.path(), u64::MAX, 10).unwrap();
    assert!(!current.exists(), "the rotation was finished");
    assert!(!dir.path().join(".tmpAbC123").exists());
    assert_eq!(journal.last().unwrap().unwrap().step, 7);
}

#[test]
fn damaged_future_and_foreign_states_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let write = |edit: &dyn Fn(&mut serde_json::Value)| {
        kept(dir.path(), State::new(identity()));
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        shared::file::write_atomic(&path, json.to_string().as_bytes()).unwrap();
        state::read(dir.path(), &identity())
    };
    assert!(write(&|_| ()).unwrap().is_some());
    let next = write(&|json| {
        json["format"] = (state::FORMAT + 1).into();
        json["something_new"] = 1.into();
    });
    assert!(next.unwrap().is_some(), "one release forward is read");
    for edit in [
        |json: &mut serde_json::Value| json["format"] = (state::FORMAT + 2).into(),
        |json: &mut serde_json::Value| json["weights"] = "all of them".into(),
        |json: &mut serde_json::Value| json["identity"]["genesis"] = "0xdef".into(),
    ] {
        assert!(write(&edit).unwrap().is_none());
        assert!(!path.exists(), "it was set aside");
    }
    shared::file::write_atomic(&path, b"{\"format\":1,").unwrap();
    assert!(state::peek(dir.path()).unwrap_err().contains("damaged"));
    assert!(state::read(dir.path(), &identity()).unwrap().is_none());
    let aside = fs::read_dir(dir.path()).unwrap().count();
    assert!(aside >= 1, "what was set aside is kept");
    let foreign = write(&|json| json["identity"]["netuid"] = 7.into());
    assert!(matches!(foreign, Err(StateError::Foreign { .. })));
    assert!(path.exists(), "what belongs to another stays");
}

#[test]
fn a_state_that_cannot_be_written_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let kept = kept(dir.path(), State::new(identity()));
    let before = fs::read(dir.path().join("state.json")).unwrap();
    // The file system refuses: its folder is a file now. (Root may write anywhere else.)
    let gone = dir.path().with_extension("moved");
    fs::rename(dir.path(), &gone).unwrap();
    shared::file::write_atomic(dir.path(), b"no folder").unwrap();
    assert!(kept.update(|state| state.step = 9).is_err());
    assert_eq!(kept.get().step, 0);
    assert_eq!(fs::read(gone.join("state.json")).unwrap(), before);
    fs::remove_file(dir.path()).unwrap();
    fs::rename(&gone, dir.path()).unwrap();
    kept.update(|state| state.step = 9).unwrap();
    assert_eq!(kept.get().step, 9);
}

#[test]
fn an_unwritable_state_is_told_until_it_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let (board, alarms) = Board::new(Details::default());
    let kept = Kept::new(&folder, State::new(identity()), alarms.state).unwrap();
    let told = || {
        let status = board.status("test", Duration::ZERO);
        status.details.alarms.contains_key(&Cause::State)
    };
    assert!(!told());
    fs::remove_dir_all(&folder).unwrap();
    shared::file::write_atomic(&folder, b"no folder").unwrap();
    assert!(kept.update(|state| state.step = 9).is_err());
    assert!(told());
    fs::remove_file(&folder).unwrap();
    kept.update(|state| state.step = 9).unwrap();
    assert!(!told());
}

#[test]
fn a_damaged_record_is_set_aside_and_the_others_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open(dir.path(), u64::MAX, 10).unwrap();
    let journal = open();
    for step in 0..3 {
        journal.append(&record(step, None), |_| [7; 64]).unwrap();
    }
    let current = dir.path().join(CURRENT);
    let before = fs::read_to_string(&current).unwrap();
    let damaged = before.replacen("\"step\":1,", "\"step\":\u{1},", 1);
    shared::file::write_atomic(&current, damaged.as_bytes()).unwrap();

    let journal = open();
    assert_eq!(journal.last().unwrap().unwrap().step, 2);
    let steps: Vec<u64> = journal::read(&current)
        .unwrap()
        .iter()
        .map(|entry| {
            assert!(entry.signature.is_some());
            entry.record.step
        })
        .collect();
    assert_eq!(steps, [0, 2]);
    let aside = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "aside"));
    assert_eq!(fs::read_to_string(aside.unwrap()).unwrap(), damaged);
    journal.append(&record(3, None), |_| [7; 64]).unwrap();
    assert_eq!(open().last().unwrap().unwrap().step, 3);
}

#[test]
fn damage_in_the_running_journal_costs_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), 1 << 20, 10).unwrap();
    journal.append(&record(0, None), |_| [7; 64]).unwrap();
    let current = dir.path().join(CURRENT);
    let mut text = fs::read(&current).unwrap();
    text.extend_from_slice(&vec![b'x'; 1 << 20]);
    text.push(b'\n');
    shared::file::write_atomic(&current, &text).unwrap();
    // It is time to compress the file, and it can't be read.
    journal.append(&record(1, None), |_| [7; 64]).unwrap();
    assert_eq!(journal.last().unwrap().unwrap().step, 1);
}

#[test]
fn a_damaged_compressed_file_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    // Each record is compressed at once.
    let journal = Journal::open(dir.path(), 1, 10).unwrap();
    for step in 0..2 {
        journal.append(&record(step, None), |_| [7; 64]).unwrap();
    }
    let newest = dir.path().join("steps-0000000001-0000000001.jsonl.zst");
    shared::file::write_atomic(&newest, b"rust").unwrap();
    assert_eq!(journal.last().unwrap().unwrap().step, 0);
}

#[test]
fn only_a_fault_of_the_model_costs_it() {
    let machine = record(0, Some(Fault::machine("the GPU is gone")));
    assert_eq!(machine.kept, [Uid(1)]);
    assert!(machine.models[&Uid(2)].weight.0.abs() < f64::EPSILON);
    let mut state = State::new(identity());
    let pool = [(Uid(2), Hotkey([2; 32]))].into();
    state.pools.insert(CompetitionId::from("l3"), pool);
    state.absorb(&machine, 0);
    let pool = &state.pools[&CompetitionId::from("l3")];
    assert!(
        pool.contains_key(&Uid(1)) && pool.contains_key(&Uid(2)),
        "it stays in the pool"
    );
    assert!(
        !state.evaluated.contains_key(&Uid(2)),
        "and is still to be evaluated"
    );

    let model = record(0, Some(Fault::model("not a model")));
    state.absorb(&model, 0);
    assert!(state.evaluated.contains_key(&Uid(2)));
    assert_eq!(model.kept, [Uid(1), Uid(2)]);
}

#[test]
fn a_uid_that_changes_hands_loses_its_weight() {
    let mut state = State::new(identity());
    let hotkeys = [
        Hotkey([0; 32]),
        Hotkey([1; 32]),
        Hotkey([2; 32]),
        Hotkey([3; 32]),
    ];
    state.follow(&hotkeys);
    state.absorb(&record(0, None), 0);
    assert!(state.weights.get(Uid(1)) > 0.0 && state.weights.get(Uid(2)) > 0.0);
    let mut now = hotkeys.to_vec();
    now[1] = Hotkey([9; 32]);
    now.push(Hotkey([4; 32]));
    assert_eq!(state.follow(&now), [Uid(1)]);
    assert!(state.weights.get(Uid(1)).abs() < f32::EPSILON);
    assert!(state.weights.get(Uid(2)) > 0.0);
    assert_eq!(state.weights.values().len(), 5);
    assert!(!state.pools[&CompetitionId::from("l3")].contains_key(&Uid(1)));
    assert!(state.follow(&now).is_empty());
}

fn sign(bytes: &[u8]) -> [u8; 64] {
    [bytes[bytes.len() - 1]; 64]
}

fn steps(path: &Path) -> Vec<u64> {
    let entries = journal::read(path).unwrap();
    entries.iter().map(|entry| entry.record.step).collect()
}

#[test]
fn the_journal_keeps_whole_signed_lines_through_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), 1 << 20, 3).unwrap();
    for step in 0..3 {
        journal.append(&record(step, None), sign).unwrap();
    }
    let path = journal.current();
    // Killed in the middle of a line, and after the signature of a record that never came.
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(b"{\"format\":1,\"ver");
    shared::file::write_atomic(&path, &bytes).unwrap();
    let signatures = journal::signatures_of(&path);
    let mut bytes = fs::read(&signatures).unwrap();
    bytes.extend_from_slice(b"{\"step\":3,\"sha");
    shared::file::write_atomic(&signatures, &bytes).unwrap();
    let journal = Journal::open(dir.path(), 1 << 20, 3).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len() as usize, whole);
    assert_eq!(journal.last().unwrap().unwrap(), record(2, None));
    journal.append(&record(3, None), sign).unwrap();
    assert_eq!(steps(&path), [0, 1, 2, 3]);
    for entry in journal::read(&path).unwrap() {
        let signature = entry.signature.unwrap();
        let expected = sign(&journal::signed_bytes(&entry.line));
        assert_eq!(signature.signature, hex::encode(expected));
    }
}

#[test]
fn old_records_are_compressed_and_none_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    for step in 0..40_u64 {
        // Opened anew for each: a restart after every step.
        let journal = Journal::open(dir.path(), 6000, 100).unwrap();
        assert_eq!(
            journal.last().unwrap().map(|last| last.step),
            step.checked_sub(1)
        );
        journal.append(&record(step, None), sign).unwrap();
    }
    let mut all = Vec::new();
    let mut files: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "zst" || e == "jsonl"))
        .collect();
    files.sort();
    // Digits sort before dots: the current file comes last of all.
    files.sort_by_key(|path| path.file_name().unwrap() == CURRENT);
    assert!(files.len() > 3);
    for file in &files {
        all.extend(steps(file));
    }
    assert_eq!(all, (0..40).collect::<Vec<u64>>());

    // Killed between the compressed file and the end of the current one.
    let rotated = &files[0];
    let text = zstd::decode_all(fs::read(rotated).unwrap().as_slice()).unwrap();
    let again = tempfile::tempdir().unwrap();
    let copy = again.path().join(rotated.file_name().unwrap());
    fs::copy(rotated, &copy).unwrap();
    fs::copy(
        journal::signatures_of(rotated),
        journal::signatures_of(&copy),
    )
    .unwrap();
    shared::file::write_atomic(&again.path().join(CURRENT), &text).unwrap();
    let journal = Journal::open(again.path(), 6000, 100).unwrap();
    assert!(!journal.current().exists());
    assert_eq!(
        journal.last().unwrap().unwrap().step,
        *steps(&copy).last().unwrap()
    );
}

#[test]
fn a_large_step_is_a_small_record() {
    let mut large = record(0, None);
    let template = large.models[&Uid(1)].clone();
    let mut digits = 1_u64;
    large.models = (0..10)
        .map(|uid| {
            let mut row = template.clone();
            row.losses = (0..400)
                .map(|_| {
                    digits = digits
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    // A loss is an f32 made a double.
                    Real::from((digits >> 40) as f32 / 5_000_000.0)
                })
                .collect();
            (Uid(uid), row)
        })
        .collect();
    large.samples.ids = (0..400).map(|n| format!("{n:064x}")).collect();
    large.weights_before = vec![Real(0.123_456_789); 256];
    scoring::score(&mut large);
    let packed = zstd::encode_all(serde_json::to_vec(&large).unwrap().as_slice(), 9).unwrap();
    assert!(packed.len() < 200_000, "{} bytes", packed.len());
}

/// Returns whether a number is read back as it was written; all NaN are one.
fn is_same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn same(a: &[Real], b: &[Real]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a.0, b.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_number_survives_the_state_the_journal_and_the_status(
        bits in prop::collection::vec(any::<u64>(), 1..40),
        single in any::<f32>(),
        plain in any::<f64>().prop_filter("times and rules are finite", |x| x.is_finite()),
    ) {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, f64::MAX];
        let numbers = bits.into_iter().map(f64::from_bits).chain(special);
        let losses: Vec<Real> = numbers.map(Real).collect();
        let weights: Vec<Real> = vec![single.into(), f32::MIN_POSITIVE.into(), 0.1_f32.into()];
        let dir = tempfile::tempdir().unwrap();

        let mut state = State::new(identity());
        state.weights = weights.iter().copied().collect();
        let known = state.known.entry(CompetitionId::from("l3")).or_default();
        known.models.insert("content".into(), ModelLosses {
            tokenizer: "t".into(),
            plan: Plan::default(),
            parameters: 1,
            losses: losses.clone(),
            seconds: plain,
        });
        let kept = kept(dir.path(), state).get();
        let read = state::read(dir.path(), &identity()).unwrap().unwrap();
        let model = &read.known[&CompetitionId::from("l3")].models["content"];
        prop_assert!(same(&model.losses, &losses));
        prop_assert!(is_same(model.seconds, plain));
        let (was, is) = (kept.weights.values(), read.weights.values());
        prop_assert!(was.iter().zip(is).all(|(a, b)| is_same((*a).into(), (*b).into())));

        let mut record = record(1, None);
        record.weights_before.clone_from(&losses);
        record.rules.temperature = plain;
        record.timings.insert("load".into(), plain);
        let row = record.models.get_mut(&Uid(1)).unwrap();
        row.losses.clone_from(&losses);
        row.score.win_rate = plain;
        row.seconds = plain;
        // Read plain, and compressed.
        for rotate_at in [u64::MAX, 0] {
            let folder = dir.path().join(rotate_at.to_string());
            let journal = Journal::open(&folder, rotate_at, 2).unwrap();
            journal.append(&record, |_| [0; 64]).unwrap();
            let read = journal.last().unwrap().unwrap();
            let row = &read.models[&Uid(1)];
            prop_assert!(same(&read.weights_before, &losses) && same(&row.losses, &losses));
            let times = [read.rules.temperature, read.timings["load"], row.score.win_rate, row.seconds];
            prop_assert!(times.into_iter().all(|number| is_same(number, plain)));
        }

        let summary = |loss: &Real| ModelSummary { loss: *loss, win_rate: *loss, weight: *loss };
        let (board, _) = Board::new(Details {
            last_step: Some(LastStep {
                step: 1,
                competition: CompetitionId::from("l3"),
                block: 1,
                samples: String::new(),
                seconds: plain,
                finished_at: Timestamp::UNIX_EPOCH,
                models: (0..).map(Uid).zip(losses.iter().map(summary)).collect(),
            }),
            ..Details::default()
        });
        let path = dir.path().join("status.json");
        board.status("test", Duration::ZERO).write(&path).unwrap();
        let read = status::read(&path).unwrap().unwrap().details.last_step.unwrap();
        prop_assert!(is_same(read.seconds, plain));
        let read: Vec<Real> = read.models.values().map(|model| model.loss).collect();
        prop_assert!(same(&read, &losses));
    }
}

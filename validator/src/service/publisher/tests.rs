use std::{collections::BTreeMap, path::Path};

use localnet::{
    bucket,
    http::{Fault, Faults, Rule},
};
use report::{
    Journal,
    board::Board,
    publication::{Bucket, BucketKey},
    status::{Cause, Details},
    step_record::{self, Engine, Rules, Samples},
};
use subnet::{CompetitionId, Hotkey, Netuid, Parameters};

use super::*;

fn record(step: u64) -> StepRecord {
    StepRecord {
        format: step_record::FORMAT,
        version: "test".into(),
        netuid: Netuid(6),
        hotkey: Hotkey([7; 32]),
        step,
        competition: CompetitionId::from("l3"),
        block: step,
        block_hash: String::new(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        rules: Rules::of(&Parameters::embedded(), 2, 0.5),
        samples: Samples {
            // Two steps share a set.
            digest: format!("{:064x}", step / 2),
            ..Samples::default()
        },
        engine: Engine::default(),
        sandbox: None,
        plans: BTreeMap::new(),
        models: BTreeMap::new(),
        refused: vec![],
        weights_before: vec![],
        weights_after: vec![],
        kept: vec![],
        generated: BTreeMap::new(),
        receipt: None,
        timings: BTreeMap::new(),
    }
}

/// Appends a step to the journal, with its sample set.
fn step(state: &Path, journal: &Journal, step: u64) {
    let record = record(step);
    let path = samples::path_of(&state.join("samples"), &record.samples.digest);
    file::write_atomic(&path, record.samples.digest.as_bytes()).unwrap();
    journal.append(&record, |_| [3; 64]).unwrap();
}

fn publisher(state: &Path, place: PublishPlace) -> (Publisher, Board) {
    let (board, alarms) = Board::new(Details::default());
    let publisher = Publisher {
        place,
        folder: state.to_owned(),
        records: broadcast::channel(1).1,
        alarm: alarms.publish,
        shutdown: Shutdown::new(),
    };
    (publisher, board)
}

fn manifest(place: &Path) -> Vec<u64> {
    let bytes = file::read_limited(&place.join(MANIFEST), 1 << 20).unwrap();
    let manifest = bytes.map(|bytes| StepManifest::read(&bytes).unwrap());
    let steps = manifest.into_iter().flat_map(|manifest| manifest.steps);
    steps.map(|step| step.step).collect()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test]
async fn steps_are_published_whole_once_and_the_oldest_leave() {
    let (state, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Small: files are rotated under way.
    let journal = Journal::open(&state.path().join("records"), 20_000, 100).unwrap();
    let folder = PublishPlace::Folder(place.path().to_owned());
    let (publisher, _) = publisher(state.path(), folder);
    let mut ledger = publisher.ledger();
    for number in [3, 4, 9] {
        step(state.path(), &journal, number);
    }
    publisher.catch_up(&mut ledger).await.unwrap();
    assert_eq!(manifest(place.path()), [3, 4, 9]);
    let read = journal::read(&place.path().join("records/step-0000000004.jsonl.zst")).unwrap();
    let [entry] = read.as_slice() else {
        panic!("{read:?}")
    };
    assert_eq!((entry.record.step, &entry.record), (4, &record(4)));
    assert!(entry.signature.is_some());
    // What is there is not written again; what a reader holds open stays.
    let first = place.path().join("records/step-0000000003.jsonl.zst");
    let written = || std::fs::metadata(&first).unwrap().modified().unwrap();
    let before = written();
    for number in 10..10 + MAX_STEPS as u64 - 3 {
        step(state.path(), &journal, number);
    }
    publisher.catch_up(&mut ledger).await.unwrap();
    assert_eq!(
        (manifest(place.path()).len(), written()),
        (MAX_STEPS, before)
    );
    for number in 300..310 {
        step(state.path(), &journal, number);
    }
    // After a restart, too.
    let mut ledger = publisher.ledger();
    publisher.catch_up(&mut ledger).await.unwrap();
    let steps = manifest(place.path());
    assert_eq!(
        (steps.len(), steps[0], steps[MAX_STEPS - 1]),
        (MAX_STEPS, 17, 309)
    );
    assert_eq!(files(&place.path().join("records")), 2 * MAX_STEPS);
    let digests: BTreeSet<u64> = steps.iter().map(|step| step / 2).collect();
    assert_eq!(files(&place.path().join("samples")), digests.len());
}

#[tokio::test]
async fn a_crash_between_files_is_made_good_and_a_set_that_is_gone_is_said() {
    let (state, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = Journal::open(&state.path().join("records"), 1 << 20, 1).unwrap();
    let folder = PublishPlace::Folder(place.path().to_owned());
    let (publisher, _) = publisher(state.path(), folder);
    step(state.path(), &journal, 1);
    let mut ledger = publisher.ledger();
    // It was begun, and half of it was written.
    ledger.begin(PublishedStep {
        step: 1,
        competition: CompetitionId::from("l3"),
        samples: Some(format!("{:064x}", 0)),
    });
    publisher.keep(&ledger).unwrap();
    let half = place.path().join("records/step-0000000001.jsonl.zst");
    file::write_atomic(&half, b"half").unwrap();
    std::fs::File::create(place.path().join("records/.tmpabc")).unwrap();
    assert_eq!(manifest(place.path()), [0_u64; 0]);
    publisher.place.clean().await.unwrap();
    let mut ledger = publisher.ledger();
    publisher.catch_up(&mut ledger).await.unwrap();
    assert_eq!(manifest(place.path()), [1]);
    assert_eq!(journal::read(&half).unwrap()[0].record, record(1));
    assert_eq!(files(&place.path().join("records")), 2);

    step(state.path(), &journal, 2);
    std::fs::remove_dir_all(state.path().join("samples")).unwrap();
    publisher.catch_up(&mut ledger).await.unwrap();
    let bytes = std::fs::read(place.path().join(MANIFEST)).unwrap();
    let samples: Vec<bool> = StepManifest::read(&bytes)
        .unwrap()
        .steps
        .iter()
        .map(|step| step.samples.is_some())
        .collect();
    assert_eq!(samples, [true, false]);
}

#[tokio::test]
async fn a_bucket_that_refuses_is_told_until_it_takes_what_waits() {
    let (state, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Faults::default();
    let server = bucket::start(place.path(), faults.clone()).await.unwrap();
    let journal = Journal::open(&state.path().join("records"), 1 << 20, 1).unwrap();
    let of_key = |secret: &str| {
        let key = BucketKey::new(bucket::KEY_ID, secret);
        let endpoint = server.url().parse().unwrap();
        let bucket = Bucket::new(endpoint, false, "mine", "a b/vali", "us-east-1", key);
        PublishPlace::Bucket(Box::new(bucket.unwrap()))
    };
    for number in 1..4 {
        step(state.path(), &journal, number);
    }
    let (wrong, _) = publisher(state.path(), of_key("guessed"));
    let mut ledger = wrong.ledger();
    let error = wrong.catch_up(&mut ledger).await.unwrap_err();
    assert!(error.contains("403") && error.contains("step 1"), "{error}");
    assert!(error.contains("SignatureDoesNotMatch"), "{error}");
    assert!(!error.contains("X-Amz"), "{error}");

    let (mut publisher, board) = publisher(state.path(), of_key(bucket::SECRET));
    let (records, heard) = broadcast::channel(1);
    publisher.records = heard;
    let shutdown = publisher.shutdown.clone();
    faults.add(Rule::always(Fault::Gated).method("PUT").on("manifest"));
    let mut tasks = shared::task::TaskSet::new();
    tasks.spawn("publisher", publisher.run());
    let mut changes = board.subscribe();
    let told = || board.details().alarms.get(&Cause::Publish).cloned();
    let until = async |changes: &mut tokio::sync::watch::Receiver<()>, is_told: bool| {
        while told().is_some() != is_told {
            changes.changed().await.unwrap();
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, until(&mut changes, true))
        .await
        .unwrap();
    let problem = told().unwrap();
    assert!(problem.text.contains("step 1"), "{problem:?}");
    faults.clear();
    tokio::time::timeout(limit, until(&mut changes, false))
        .await
        .unwrap();
    let there = place.path().join("mine/a b/vali");
    assert_eq!(manifest(&there), [1, 2, 3]);
    // The last step is published when the validator stops.
    step(state.path(), &journal, 4);
    records.send(Arc::new(record(4))).unwrap();
    shutdown.request(shared::shutdown::Stop::Drain);
    drop(records);
    let ended = tokio::time::timeout(limit, tasks.next()).await.unwrap();
    assert!(ended.is_some());
    assert_eq!(manifest(&there), [1, 2, 3, 4]);
    let place = of_key(bucket::SECRET);
    place.remove(MANIFEST).await.unwrap();
    place.remove(MANIFEST).await.unwrap();
    assert_eq!(manifest(&there), [0_u64; 0]);
}

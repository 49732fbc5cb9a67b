//! A disk that decays: a bit of a stored model flips, and its miner loses nothing by it.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use models::{Store, store::StoreLimits};
use report::{
    StepRecord,
    step_record::{ModelRow, Outcome},
};
use subnet::Uid;

use crate::world::{World, stop};

/// Flips a bit in the middle of a file, as a bad disk would: its size and times stay.
pub(crate) fn flip_a_bit(path: &Path) {
    let about = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let (mut byte, middle) = ([0], about.len() / 2);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    file.set_modified(about.modified().unwrap()).unwrap();
    fs::set_permissions(path, about.permissions()).unwrap();
}

/// Uids of the models that have losses.
fn evaluated(record: &StepRecord) -> BTreeSet<Uid> {
    let models = record.models.iter();
    let evaluated = models.filter(|(_, row)| row.outcome == Outcome::Evaluated);
    evaluated.map(|(uid, _)| *uid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_on_our_disk_costs_no_miner_anything() {
    let world = World::start("decay", Duration::from_millis(300)).await;
    let flags = ["--sync-blocks", "1"];
    let mut validator = world.running("a", &flags);
    world
        .until("a", "two steps", || world.records("a").len() > 1)
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    let before = world.records("a");
    let last = before.last().unwrap();
    let by_weight = |row: &&ModelRow| (row.weight.0 * 1e9) as u64;
    let best = last.models.values().max_by_key(by_weight).unwrap();
    let store = Store::open(&world.store(), StoreLimits::default()).unwrap();
    let model = store.model(&best.content.parse().unwrap()).unwrap();
    flip_a_bit(&model.unwrap().dir.join("model.safetensors"));
    drop(store);

    let mut validator = world.running("a", &flags);
    world
        .until("a", "both competitions again", || {
            let records = world.records("a");
            let again = records[before.len()..].iter();
            again
                .filter(|record| record.competition == last.competition)
                .count()
                > 1
        })
        .await;
    assert_eq!(stop(&mut validator).await, 0);
    for record in &world.records("a")[before.len()..] {
        let expected = before
            .iter()
            .rfind(|old| old.competition == record.competition);
        assert_eq!(evaluated(record), evaluated(expected.unwrap()));
    }
    let log = world.log_text("a");
    assert!(log.contains("our copy of a model is damaged"), "{log}");
}

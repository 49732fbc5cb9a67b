//! The samples of a step: those it began with if it was interrupted, else the supply's, kept.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use shared::{
    clock,
    file::{self, FileError},
    status::Health,
};

use super::Context;
use crate::state::OpenStep;
use report::status::{Activity, Sources};
use samples::{Drawn, Order, SampleSet};
use subnet::Fault;

/// A set of thousands of long conversations is far below this.
const MAX_BYTES: u64 = 256 << 20;

/// How many sets are kept for replays.
const KEPT: usize = 200;

/// So many sets that can't be used are remembered.
const UNUSABLE: usize = 8;

const ZSTD_LEVEL: i32 = 3;

/// Returns the sample set of a step. It is on disk, and the step open, before any model is
/// evaluated on it.
pub(super) async fn of_step(context: &Context, open: &OpenStep) -> Result<SampleSet, Fault> {
    let path = |digest: &str| path_of(&context.sample_folder, digest);
    let unusable = context.state.look(|state| state.unusable.clone());
    if !open.samples.is_empty() && !unusable.contains(&open.samples) {
        match read(&path(&open.samples)) {
            Ok(set) if set.digest == open.samples => return Ok(set),
            Ok(_) => tracing::warn!("the kept samples are not those of the step: drawing again"),
            Err(reason) => tracing::warn!(reason, "the kept samples are gone: drawing again"),
        }
    }
    context.board.activity(Activity::FetchingSamples);
    let Drawn {
        set,
        trouble,
        usable,
        dropped,
    } = draw(context, open, &unusable).await?;
    if trouble.is_empty() {
        context.sources_alarm.end();
    } else {
        let text = format!("samples: {}", trouble.join("; "));
        context.sources_alarm.raise(Health::Yellow, text);
    }
    context.board.note(|details| {
        details.sources = Some(Sources {
            used: set.sources.clone(),
            failing: trouble,
            cached_age: set.cached_age,
            usable: Some(usable),
            dropped: Some(dropped),
        });
    });
    write(&path(&set.digest), &set)
        .map_err(|error| Fault::machine(shared::Failure::of(shared::Exit::Machine, &error)))?;
    prune(&context.sample_folder, &path(&set.digest), clock::now());
    let mut open = open.clone();
    open.samples.clone_from(&set.digest);
    open.seed = set.seed;
    context.state.update(|state| state.open = Some(open))?;
    Ok(set)
}

/// Draws a set that no step has found unusable: the seeds that follow are tried after the first, so
/// that validators which find the same one unusable agree on the next.
async fn draw(context: &Context, open: &OpenStep, unusable: &[String]) -> Result<Drawn, Fault> {
    for more in 0..=UNUSABLE {
        let order = Order {
            seed: open.seed.wrapping_add(more as u64),
            block: open.seed_block,
        };
        let drawn = context.supply.take(order).await?;
        if !unusable.contains(&drawn.set.digest) {
            return Ok(drawn);
        }
    }
    Err(Fault::outside(
        "the sources give only sample sets that can't be used",
    ))
}

/// Gives up a sample set that no model can be evaluated on, also after a restart.
pub(super) fn drop_set(context: &Context, digest: &str) -> Result<(), Fault> {
    Ok(context.state.update(|state| {
        state.open = None;
        state.unusable.push(digest.to_owned());
        let surplus = state.unusable.len().saturating_sub(UNUSABLE);
        state.unusable.drain(..surplus);
    })?)
}

/// Returns the file of a sample set.
pub fn path_of(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.json.zst"))
}

/// Reads a kept sample set; its digest is computed anew.
pub fn read(path: &Path) -> Result<SampleSet, String> {
    let packed = file::read_limited(path, MAX_BYTES)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("there is no {}", path.display()))?;
    unpack(&packed)
}

/// Unpacks a sample set, which a stranger may have packed.
pub fn unpack(packed: &[u8]) -> Result<SampleSet, String> {
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(|error| error.to_string())?;
    let unpacked = decoder.take(MAX_BYTES + 1).read_to_end(&mut text);
    unpacked.map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it unpacks to more than {MAX_BYTES} bytes"));
    }
    let set: SampleSet = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let cached_age = set.cached_age;
    let mut set = SampleSet::new(set.samples, set.sources, set.seed);
    set.cached_age = cached_age;
    Ok(set)
}

fn write(path: &Path, set: &SampleSet) -> Result<(), FileError> {
    let pack = || zstd::encode_all(serde_json::to_vec(set)?.as_slice(), ZSTD_LEVEL);
    file::write_atomic(path, &pack().map_err(FileError::on("compress", path))?)
}

/// Removes the oldest sets beyond those kept, never that of the step; failing to costs only disk.
/// One from the future was written under a wrong clock: its age is unknown, so it goes first.
fn prune(folder: &Path, current: &Path, now: Timestamp) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut sets: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path() != current)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .map(|(written, path)| (written <= SystemTime::from(now), written, path))
        .collect();
    sets.sort();
    let surplus = (sets.len() + 1).saturating_sub(KEPT);
    for (_, _, path) in sets.drain(..surplus) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_costs_old_sets_and_never_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let now = clock::now();
        let set = |name: String, age: i64| {
            let path = dir.path().join(name);
            file::write_atomic(&path, b"x").unwrap();
            let written = SystemTime::from(
                now.saturating_sub(jiff::SignedDuration::from_secs(age))
                    .unwrap(),
            );
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(written).unwrap();
            path
        };
        // Written while the clock was an hour ahead, and before that.
        let ahead: Vec<_> = (0..3)
            .map(|n| set(format!("ahead-{n}"), -3600 + n))
            .collect();
        let before: Vec<_> = (0..KEPT)
            .map(|n| set(format!("before-{n}"), 7200 + n as i64))
            .collect();
        let current = set("current".to_owned(), 100_000);
        prune(dir.path(), &current, now);
        assert!(current.exists());
        assert!(ahead.iter().all(|path| !path.exists()));
        let kept = before.iter().filter(|path| path.exists()).count();
        assert_eq!(
            (kept, before[0].exists(), before[KEPT - 1].exists()),
            (KEPT - 1, true, false)
        );
    }
}

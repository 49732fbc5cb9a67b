//! The samples of a step: those it began with if it was interrupted, else a fresh draw, kept.

use std::path::{Path, PathBuf};

use shared::file::{self, FileError};

use super::Context;
use crate::{samples::SampleSet, state::OpenStep, subnet::Fault};

/// A set of thousands of long conversations is far below this.
const MAX_BYTES: u64 = 256 << 20;

/// How many sets are kept for replays.
const KEPT: usize = 200;

const ZSTD_LEVEL: i32 = 3;

/// Returns the sample set of a step. It is on disk before any model is evaluated on it.
pub(super) async fn of_step(context: &Context, open: &OpenStep) -> Result<SampleSet, Fault> {
    let path = |digest: &str| path_of(&context.sample_folder, digest);
    if !open.samples.is_empty() {
        match read(&path(&open.samples)) {
            Ok(set) if set.digest == open.samples => return Ok(set),
            Ok(_) => tracing::warn!("the kept samples are not those of the step: drawing again"),
            Err(reason) => tracing::warn!(reason, "the kept samples are gone: drawing again"),
        }
    }
    context.board.phase("fetching samples");
    let wanted = context.settings.samples;
    let pool = context.fetcher.fetch(wanted, open.seed).await;
    let set = pool.draw(wanted, open.seed)?;
    write(&path(&set.digest), &set)
        .map_err(|error| Fault::machine(shared::Failure::of(shared::Exit::Machine, &error)))?;
    prune(&context.sample_folder);
    context.update(|state| {
        if let Some(open) = &mut state.open {
            open.samples.clone_from(&set.digest);
        }
    })?;
    Ok(set)
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
    let text = zstd::decode_all(packed.as_slice()).map_err(|error| error.to_string())?;
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

/// Removes the oldest sets beyond those kept; failing to costs only disk.
fn prune(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut sets: Vec<_> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    sets.sort();
    let surplus = sets.len().saturating_sub(KEPT);
    for (_, path) in sets.drain(..surplus) {
        let _ = std::fs::remove_file(path);
    }
}

//! The folders of W&B runs on disk: which have arrived, and how many of either kind are kept.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

/// Arrived runs that are kept, the newest: for `wandb sync`, should somebody want one elsewhere.
const ARRIVED_KEPT: usize = 5;
/// What the marker of a run that we have sent says; W&B's clients leave theirs empty.
pub(super) const SENT: &[u8] = b"sent by finetune-vali\n";
/// The lines that the stream reads; no client of W&B's writes such a file.
pub(super) const JOURNAL: &str = "history.jsonl";

/// Runs that have not arrived whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsent {
    /// The folders of their runs, oldest first.
    pub folders: Vec<PathBuf>,
    /// What they take on disk.
    pub bytes: u64,
    /// Those that were removed because all together took more than they may.
    pub removed: Vec<PathBuf>,
}

/// A run's folder, by the name W&B's clients look for.
struct RunFolder {
    folder: PathBuf,
    arrived: bool,
    ours: bool,
}

/// Returns the folders of runs that were never sent whole, oldest first.
pub fn unsent_runs(folder: &Path) -> Vec<PathBuf> {
    let unsent = runs(folder).into_iter().filter(|run| !run.arrived);
    unsent.map(|run| run.folder).collect()
}

/// Removes the oldest of our runs: of those that have arrived all but the last few, of the others
/// as many as it takes to come down to `most_unsent` bytes. Never removes `current`, nor what
/// another program has written.
pub(super) fn tidy(folder: &Path, current: Option<&Path>, most_unsent: u64) -> io::Result<Unsent> {
    let ours = runs(folder)
        .into_iter()
        .filter(|run| run.ours && Some(run.folder.as_path()) != current);
    let (arrived, waiting): (Vec<RunFolder>, Vec<RunFolder>) = ours.partition(|run| run.arrived);
    for run in arrived.iter().rev().skip(ARRIVED_KEPT) {
        fs::remove_dir_all(&run.folder)?;
    }
    let mut unsent = Unsent::default();
    let mut waiting: VecDeque<(PathBuf, u64)> = waiting
        .into_iter()
        .map(|run| size(&run.folder).map(|bytes| (run.folder, bytes)))
        .collect::<io::Result<_>>()?;
    unsent.bytes = waiting.iter().map(|(_, bytes)| bytes).sum();
    while unsent.bytes > most_unsent
        && let Some((oldest, bytes)) = waiting.pop_front()
    {
        fs::remove_dir_all(&oldest)?;
        unsent.bytes -= bytes;
        unsent.removed.push(oldest);
    }
    unsent.folders = waiting.into_iter().map(|(folder, _)| folder).collect();
    Ok(unsent)
}

/// Returns all runs, oldest first: their names begin with when they began.
fn runs(folder: &Path) -> Vec<RunFolder> {
    let Ok(entries) = fs::read_dir(folder.join("wandb")) else {
        return Vec::new();
    };
    let mut runs: Vec<RunFolder> = entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let id = folder.file_name()?.to_str()?.rsplit('-').next()?;
            if folder.is_symlink() || !folder.join(format!("run-{id}.wandb")).exists() {
                return None;
            }
            let marker = fs::read(folder.join(format!("run-{id}.wandb.synced"))).ok();
            let ours = marker.as_deref() == Some(SENT) || folder.join(JOURNAL).exists();
            Some(RunFolder {
                arrived: marker.is_some(),
                ours,
                folder,
            })
        })
        .collect();
    runs.sort_by(|a, b| a.folder.cmp(&b.folder));
    runs
}

/// Returns what the files of a run take: they lie in its folder and in one below.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Of the entry itself: a link is not followed.
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            size(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the folder of a run as it is when it is sent, waits, or is that of another program.
    fn run(folder: &Path, day: u32, marker: Option<&[u8]>, journal: Option<usize>) -> PathBuf {
        let run = folder.join(format!("wandb/offline-run-202601{day:02}_000000-r{day}"));
        let write = |name: &str, bytes: &[u8]| {
            shared::file::write_atomic(&run.join(name), bytes).unwrap();
        };
        write(&format!("run-r{day}.wandb"), b"");
        write("files/output.log", b"");
        if let Some(marker) = marker {
            write(&format!("run-r{day}.wandb.synced"), marker);
        }
        if let Some(bytes) = journal {
            write(JOURNAL, &vec![b'x'; bytes]);
        }
        run
    }

    #[test]
    fn the_newest_arrived_runs_stay_and_others_programs_runs_too() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = [
            run(dir.path(), 1, None, None),
            run(dir.path(), 2, Some(b""), None),
        ];
        let sent: Vec<PathBuf> = (3..12)
            .map(|day| run(dir.path(), day, Some(SENT), None))
            .collect();
        // Sent by `wandb sync`.
        let synced = run(dir.path(), 12, Some(b""), Some(9));
        let waiting = run(dir.path(), 13, None, Some(9));
        let unsent = tidy(dir.path(), None, 100).unwrap();
        assert_eq!((unsent.bytes, unsent.folders), (9, vec![waiting]));
        assert!(unsent.removed.is_empty());
        let (gone, kept) = sent.split_at(5);
        assert!(gone.iter().all(|run| !run.exists()));
        assert!(kept.iter().chain(&foreign).all(|run| run.exists()));
        assert!(synced.exists());
    }

    #[test]
    fn unsent_runs_stay_until_they_take_too_much_and_the_current_one_always() {
        let dir = tempfile::tempdir().unwrap();
        let runs: Vec<PathBuf> = (1..6)
            .map(|day| run(dir.path(), day, None, Some(1000)))
            .collect();
        let unsent = tidy(dir.path(), None, 5000).unwrap();
        assert_eq!(unsent.folders, runs);
        let current = Some(runs[0].as_path());
        let unsent = tidy(dir.path(), current, 2500).unwrap();
        assert_eq!(unsent.removed, runs[1..3]);
        assert_eq!(unsent.folders, runs[3..]);
        let unsent = tidy(dir.path(), current, 0).unwrap();
        assert_eq!(unsent.bytes, 0);
        assert_eq!(unsent_runs(dir.path()), runs[..1]);
    }
}

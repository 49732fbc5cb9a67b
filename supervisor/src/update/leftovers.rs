//! What builds and killed processes leave behind, kept within bounds.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use shared::file;

use crate::{config::Config, error::Fault, home::Home};

/// Age of a temporary file, in seconds, from which on nobody is still writing it: our own workers
/// have ended with the supervisor before us, and the child's files are small.
const STALE: i64 = 60;
/// Size of our target directory from which on it is built anew, in bytes. Cargo itself removes
/// nothing of what no version needs any more.
const MAX_TARGET: u64 = 20 << 30;

/// Removes temporary files that nobody will finish.
pub(crate) fn remove_stale(home: &Home) {
    let now = shared::clock::now().as_second();
    let old = |path: &Path| {
        let written = fs::symlink_metadata(path).map(|meta| meta.mtime());
        written.is_ok_and(|written| written + STALE <= now)
    };
    // As `tempfile` calls them, and as a release is called before it is whole.
    for (folder, prefix) in [(home.path(), ".tmp"), (&home.releases(), ".new-")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes());
            if !ours || !old(&path) {
                continue;
            }
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            tracing::info!(path = %path.display(), ?removed, "left by a process that was killed");
        }
    }
}

/// Empties the target directory when it has grown beyond what builds need, or leaves too little of
/// the disk for another one. One that the operator has named is theirs.
pub(crate) fn bound_target(config: &Config) -> Result<(), Fault> {
    let options = &config.build;
    let folder = &options.target_dir;
    if !folder.starts_with(config.home.path()) || !folder.exists() {
        return Ok(());
    }
    let short = file::free_space(folder)? < options.min_disk;
    empty_above(folder, if short { 0 } else { MAX_TARGET })?;
    Ok(())
}

fn empty_above(folder: &Path, most: u64) -> io::Result<()> {
    let size = size(folder)?;
    if size > most {
        tracing::info!(bytes = size, folder = %folder.display(), "emptying the target directory");
        fs::remove_dir_all(folder)?;
        fs::create_dir(folder)?;
    }
    Ok(())
}

/// Returns the bytes that the files of a folder take on the disk.
fn size(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total += if meta.is_dir() {
            size(&entry.path())?
        } else {
            // Cargo gives one file several names. Blocks are of 512 bytes, whatever the disk's are.
            meta.blocks() * 512 / meta.nlink().max(1)
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_stale_goes() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::of(dir.path(), "app");
        fs::create_dir_all(home.releases().join(".new-ab")).unwrap();
        let stale = [
            home.path().join(".tmpOld"),
            home.path().join("journal.json"),
        ];
        let fresh = home.path().join(".tmpNew");
        for path in stale.iter().chain([&fresh]) {
            fs::File::create(path).unwrap();
        }
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        for path in stale.iter().chain([&home.releases().join(".new-ab")]) {
            fs::File::open(path).unwrap().set_times(times).unwrap();
        }
        remove_stale(&home);
        assert!(!stale[0].exists() && stale[1].exists() && fresh.exists());
        assert!(!home.releases().join(".new-ab").exists());
    }

    #[test]
    fn a_target_directory_is_emptied_when_it_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::create_dir_all(target.join("release/deps")).unwrap();
        let file = target.join("release/deps/app");
        file::write_atomic(&file, &vec![1; 100_000]).unwrap();
        fs::hard_link(&file, target.join("release/app")).unwrap();
        empty_above(&target, 150_000).unwrap();
        assert!(file.exists(), "one file under two names");
        empty_above(&target, 50_000).unwrap();
        assert!(target.exists() && !target.join("release").exists());
    }
}

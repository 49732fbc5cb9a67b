//! Files: whole or not at all, never larger than expected, one writer at a time.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// An error on a file, naming it and what was tried.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}", path.display())]
pub struct FileError {
    /// What was tried: "read", "write", "lock".
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// Returns a function that wraps an [`io::Error`] for `path`.
    pub fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }

    /// Returns whether the disk (or a quota) is full.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Replaces `path` by `bytes`: a crash leaves the old file or the new one, never half of one.
/// Missing parent folders are made. The mode is 0644.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o644)
}

/// Like [`write_atomic`], readable by the owner only (mode 0600).
pub fn write_atomic_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_dir(folder)?;
    let write = || {
        let mut temporary = NamedTempFile::new_in(folder)?;
        temporary.write_all(bytes)?;
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        sync_dir_io(folder)
    };
    write().map_err(FileError::on("write", path))
}

/// Makes a folder and its parents.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::on("create", path))
}

/// Makes a rename or unlink inside `folder` durable.
pub fn sync_dir(folder: &Path) -> Result<(), FileError> {
    sync_dir_io(folder).map_err(FileError::on("sync", folder))
}

fn sync_dir_io(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Appends whole lines durably; what could not be written whole is taken back.
pub fn append(path: &Path, lines: &[u8]) -> Result<(), FileError> {
    let append = || {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        if written.is_err() {
            file.set_len(before)?;
        }
        written
    };
    append().map_err(FileError::on("append to", path))
}

/// Removes from a folder what writes that were killed have left. Only for the folder's one writer.
pub fn clear_temporary(folder: &Path) -> Result<(), FileError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(FileError::on("list", folder))?,
    };
    for entry in entries.filter_map(Result::ok) {
        // As `tempfile` names them.
        if entry.file_name().as_encoded_bytes().starts_with(b".tmp") {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Reads a file of at most `max` bytes; `Ok(None)` if it does not exist.
pub fn read_limited(path: &Path, max: u64) -> Result<Option<Vec<u8>>, FileError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("larger than the {max} bytes expected"),
            ));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::on("read", path)(error)),
    }
}

/// Removes a file, if it is there.
pub fn remove_file(path: &Path) -> Result<(), FileError> {
    there(fs::remove_file(path)).map_err(FileError::on("remove", path))
}

/// Removes a folder and all that is in it, if it is there.
pub fn remove_dir(path: &Path) -> Result<(), FileError> {
    there(fs::remove_dir_all(path)).map_err(FileError::on("remove", path))
}

/// What is not there need not be removed.
fn there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Replaces the symlink `link` by one to `target`, atomically.
pub fn replace_symlink(target: &Path, link: &Path) -> Result<(), FileError> {
    let replace = || {
        let folder = link.parent().unwrap_or(Path::new("."));
        let name = link
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let temporary = folder.join(format!(".{name}.new"));
        there(fs::remove_file(&temporary))?;
        std::os::unix::fs::symlink(target, &temporary)?;
        fs::rename(&temporary, link)?;
        sync_dir_io(folder)
    };
    replace().map_err(FileError::on("link", link))
}

/// Returns the bytes free to us on the file system of `path` (or its nearest existing parent).
pub fn free_space(path: &Path) -> Result<u64, FileError> {
    let existing = path
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(existing)
        .map_err(|errno| FileError::on("ask the free space of", existing)(errno.into()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// An exclusive lock, held until dropped. The file says who holds it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    /// The file, if it goes with the lock.
    vanishing: Option<PathBuf>,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Before the lock is given up: whoever waits for it finds that its file is gone.
        if let Some(path) = &self.vanishing {
            let _ = fs::remove_file(path);
        }
    }
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is held by {holder}", path.display())]
    Held {
        path: PathBuf,
        /// What the holder wrote, usually `pid 123 (name)`.
        holder: String,
    },
    /// The file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// How often a lock file may vanish between being opened and being locked.
const TRIES: usize = 100;

impl FileLock {
    /// Takes the lock at once or says who holds it. `holder` is what others will read.
    pub fn try_acquire(path: &Path, holder: &str) -> Result<Self, LockError> {
        if let Some(parent) = path.parent() {
            create_dir(parent)?;
        }
        for _ in 0..TRIES {
            let mut file = open_lock(path).map_err(FileError::on("open", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = (&mut file).take(4096).read_to_string(&mut holder);
                    let holder = match holder.trim() {
                        "" => "another process".to_owned(),
                        name => name.to_owned(),
                    };
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        holder,
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::on("lock", path)(error).into());
                }
            }
            // A file that its last holder removed locks nobody else out.
            if !is_at(&file, path).map_err(FileError::on("lock", path))? {
                continue;
            }
            let mut note = || {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "pid {} ({holder})", std::process::id())?;
                file.flush()
            };
            // The lock holds without it, also on a full disk.
            let _ = note();
            return Ok(Self {
                file,
                vanishing: None,
            });
        }
        Err(FileError::on("lock", path)(io::ErrorKind::ResourceBusy.into()).into())
    }

    /// Like [`FileLock::try_acquire`]; the file goes with the lock.
    pub fn try_acquire_vanishing(path: &Path, holder: &str) -> Result<Self, LockError> {
        let mut lock = Self::try_acquire(path, holder)?;
        lock.vanishing = Some(path.to_owned());
        Ok(lock)
    }

    /// Returns the open file, for handing the lock over to the next image of this process.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Returns whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_write_is_whole_and_leaves_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic_private(&path, b"two").unwrap();
        assert_eq!(read_limited(&path, 3).unwrap().unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let error = read_limited(&path, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge);
        assert!(read_limited(&dir.path().join("none"), 9).unwrap().is_none());
    }

    #[test]
    fn a_lock_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::try_acquire(&path, "first").unwrap();
        let error = FileLock::try_acquire(&path, "second")
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(&format!("is held by pid {} (first)", std::process::id())));
        drop(held);
        FileLock::try_acquire(&path, "third").unwrap();
    }

    #[test]
    fn a_lock_whose_file_vanishes_still_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut turns = 0;
                    while turns < 200 {
                        match FileLock::try_acquire_vanishing(&path, "turn") {
                            Ok(_lock) => {
                                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                                inside.fetch_sub(1, Ordering::SeqCst);
                                turns += 1;
                            }
                            Err(LockError::Held { .. }) => std::thread::yield_now(),
                            Err(LockError::File(error)) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}

//! Blobs: files under their SHA-256, and the staging files they grow in.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use shared::file::{self, FileError, FileLock};
use tempfile::NamedTempFile;

use super::{Store, StoreError, remove_file};
use crate::digest::Digest;

impl Store {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs").join(digest.to_string())
    }

    /// Returns the blob of this digest and size. One of another size is damaged: it is removed, so
    /// that it is fetched again.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<Option<PathBuf>, FileError> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(found) if found.len() == size => Ok(Some(path)),
            Ok(found) => {
                tracing::warn!(blob = %digest, size, found = found.len(), "removing a damaged blob");
                remove_file(&path)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::on("look at", &path)(error)),
        }
    }

    /// Opens the staging file of a download, alone: another process at the same file is an error
    /// that passes. What an earlier run left is kept.
    pub fn stage(&self, key: &str) -> Result<Staging, StoreError> {
        let lock = FileLock::try_acquire(&self.path("locks").join(key), "downloading")?;
        let path = self.path("staging").join(format!("{key}.part"));
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = open.map_err(FileError::on("open", &path))?;
        let length = file
            .seek(SeekFrom::End(0))
            .map_err(FileError::on("open", &path))?;
        Ok(Staging {
            store: self.clone(),
            path,
            file,
            length,
            _lock: lock,
        })
    }

    /// Returns whether an unfinished download of this key has bytes.
    pub(crate) fn has_staged(&self, key: &str) -> bool {
        let path = self.path("staging").join(format!("{key}.part"));
        fs::metadata(path).is_ok_and(|found| found.len() > 0)
    }

    /// Stores bytes in memory as a blob. One that is there already is compared: it may have
    /// decayed.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        let same = match self.blob(&digest, size)? {
            // What can't be read is as bad as other bytes.
            Some(path) => {
                file::read_limited(&path, size).is_ok_and(|found| found.as_deref() == Some(bytes))
            }
            None => false,
        };
        if !same {
            let path = self.blob_path(&digest);
            let write = || {
                let mut temporary = NamedTempFile::new_in(self.path("staging"))?;
                temporary.write_all(bytes)?;
                publish(temporary.as_file())?;
                let _file = temporary.persist(&path)?;
                Ok(())
            };
            write().map_err(FileError::on("store", &path))?;
            file::sync_dir(&self.path("blobs"))?;
        }
        Ok(digest)
    }
}

/// Makes a file read-only and durable, before it gets its name.
fn publish(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()
}

/// A file that is being downloaded: always a prefix of the whole.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    path: PathBuf,
    file: File,
    length: u64,
    _lock: FileLock,
}

impl Staging {
    /// Returns how many bytes are here.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Returns a reader of the bytes that are here.
    pub fn reader(&self) -> Result<File, FileError> {
        File::open(&self.path).map_err(FileError::on("open", &self.path))
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file
            .write_all(bytes)
            .map_err(FileError::on("write", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Goes on with what another download has fetched, in place of its own bytes.
    pub(crate) fn take_over(&mut self, other: Self) -> Result<(), FileError> {
        let renamed = fs::rename(&other.path, &self.path);
        renamed.map_err(FileError::on("take over", &other.path))?;
        (self.file, self.length) = (other.file, other.length);
        Ok(())
    }

    /// Throws the bytes away that are beyond `length`.
    pub fn cut(&mut self, length: u64) -> Result<(), FileError> {
        let cut = self
            .file
            .set_len(length)
            .and_then(|()| self.file.seek(SeekFrom::End(0)));
        self.length = cut.map_err(FileError::on("shorten", &self.path))?;
        Ok(())
    }

    /// Makes the file the blob of `digest`, which the caller has computed over its bytes.
    pub fn commit(self, digest: &Digest) -> Result<PathBuf, FileError> {
        let blob = self.store.blob_path(digest);
        let renamed = publish(&self.file).and_then(|()| fs::rename(&self.path, &blob));
        renamed.map_err(FileError::on("store", &blob))?;
        file::sync_dir(&self.store.path("blobs"))?;
        Ok(blob)
    }

    pub fn discard(self) -> Result<(), FileError> {
        remove_file(&self.path)
    }
}

//! The store: every file once, under its SHA-256; every model a folder of hard links.
//!
//! ```text
//! blobs/SHA256          files, read-only
//! models/KEY/..         one folder per content hash, hard links to blobs
//! models/KEY.json       what was verified of it; its time of change is that of the last use
//! tokenizers/NAME/COMMIT/..
//! small/OID             SHA-256 of small files by the hash of their git object
//! staging/..            what is not yet whole; may be resumed
//! locks/.. pins/..      who is at work on a blob, who uses a model
//! needs.json            who refers to which model
//! ```
//!
//! Everything becomes visible by one rename of something complete, so that a crash at any point
//! leaves nothing or everything. How many models use a blob is its number of links.

mod blob;
mod check;
mod need;
mod quota;
mod record;
mod small;
mod snapshot;
mod tokenizer;

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub use blob::Staging;
pub use check::{Damage, Depth};
use model::ContentHash;
pub use need::Need;
pub use quota::{Reservation, StoreLimits, Usage};
pub use record::{FORMAT as RECORD_FORMAT, FileRecord, ModelRecord, TensorDigest};
use shared::file::{self, FileError, LockError, remove_dir, remove_file};
pub use snapshot::{Pin, StoredModel};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process works on the same file.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no room, and nothing left that may go.
    #[error("no room for {needed} bytes in {}: {reason}", root.display())]
    Full {
        /// The folder of the store.
        root: PathBuf,
        /// Bytes that were asked for.
        needed: u64,
        /// Which limit stands in the way.
        reason: String,
    },
}

/// The store. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<StoreState>,
}

#[derive(Debug)]
struct StoreState {
    root: PathBuf,
    limits: StoreLimits,
    /// Bytes promised to downloads, by key of their staging file.
    promised: Mutex<BTreeMap<String, u64>>,
    /// Held in common by all users of the store; whoever has it alone may clean up after a crash.
    _users: File,
}

impl Store {
    /// Opens a store, making it if need be, and removes what a crash has left behind.
    pub fn open(root: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        for folder in [
            "blobs",
            "models",
            "tokenizers",
            "small",
            "damaged",
            "staging",
            "locks",
            "pins",
        ] {
            file::create_dir(&root.join(folder))?;
        }
        let lock = root.join("locks/users");
        let users = File::create(&lock).map_err(FileError::on("open", &lock))?;
        let alone = match users.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                return Err(FileError::on("lock", &lock)(error).into());
            }
        };
        let shared = StoreState {
            root: root.to_owned(),
            limits,
            promised: Mutex::default(),
            _users: users.try_clone().map_err(FileError::on("open", &lock))?,
        };
        let store = Self {
            shared: Arc::new(shared),
        };
        if alone {
            store.clear_after_crash()?;
        }
        // On the same open file this turns the exclusive lock into a shared one.
        users.lock_shared().map_err(FileError::on("lock", &lock))?;
        Ok(store)
    }

    /// Returns the folder of the store.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    fn path(&self, folder: &str) -> PathBuf {
        self.shared.root.join(folder)
    }

    /// Returns the name of a model's folder: its content hash in the alphabet of file names.
    fn key(hash: &ContentHash) -> String {
        hash.to_string()
            .replace('/', "_")
            .replace('+', "-")
            .trim_end_matches('=')
            .to_owned()
    }
}

/// Returns the entries of a folder; none if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    match list() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(FileError::on("list", folder)),
    }
}

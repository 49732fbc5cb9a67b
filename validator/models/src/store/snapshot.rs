//! Models: a folder of hard links and a record, published together, pinned while in use.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use model::ContentHash;
use shared::file::{self, FileError};

use super::{ModelRecord, Store, StoreError, entries, record, remove_dir, remove_file};

const MAX_RECORD: u64 = 64 << 20;

/// A model that is whole and lies in the store.
#[derive(Debug, Clone)]
pub struct StoredModel {
    /// Its folder: exactly the files that are hashed.
    pub dir: PathBuf,
    /// What was verified of it.
    pub record: ModelRecord,
    /// When it was last used.
    pub last_used: Timestamp,
}

/// Keeps a model in the store for as long as it lives, also against other processes.
#[derive(Debug)]
pub struct Pin {
    model: StoredModel,
    _lock: File,
}

impl Pin {
    pub const fn model(&self) -> &StoredModel {
        &self.model
    }
}

impl Store {
    fn model_dir(&self, hash: &ContentHash) -> PathBuf {
        self.path("models").join(Self::key(hash))
    }

    fn record_path(&self, hash: &ContentHash) -> PathBuf {
        self.path("models").join(Self::key(hash) + ".json")
    }

    /// Marks that our copy of a model was damaged, until it is added again.
    pub(super) fn damage_mark(&self, hash: &ContentHash) -> PathBuf {
        self.path("damaged").join(Self::key(hash))
    }

    /// Adds a model whose files are all blobs; adding it again changes nothing.
    pub fn add_model(&self, record: &ModelRecord) -> Result<StoredModel, StoreError> {
        let dir = self.model_dir(&record.content_hash);
        let record_path = self.record_path(&record.content_hash);
        if dir.is_dir() && !self.is_linked(record, &dir) {
            // Its links lead to files that were fetched again since: those were damaged.
            self.take_away(&record.content_hash)?;
        }
        let json = serde_json::to_vec(record).map_err(io::Error::from);
        let json = json.map_err(FileError::on("write", &record_path))?;
        // A record without a folder is not a model, so it may come first.
        file::write_atomic(&record_path, &json)?;
        if !dir.is_dir() {
            let blobs = record
                .files
                .iter()
                .map(|file| (file.path.as_str(), self.blob_path(&file.sha256)));
            self.publish_links(blobs, &dir)?;
        }
        remove_file(&self.damage_mark(&record.content_hash))?;
        Self::read_model(&record_path)?.ok_or_else(|| {
            let vanished = io::Error::other("it vanished while it was added");
            FileError::on("add", &dir)(vanished).into()
        })
    }

    /// Returns whether a model's folder holds the very blobs of its record.
    fn is_linked(&self, record: &ModelRecord, dir: &Path) -> bool {
        record.files.iter().all(|file| {
            let link = fs::metadata(dir.join(&file.path));
            let blob = fs::metadata(self.blob_path(&file.sha256));
            matches!((link, blob), (Ok(link), Ok(blob)) if link.ino() == blob.ino())
        })
    }

    /// Makes a folder of hard links, complete at the moment it appears at `to`.
    pub(super) fn publish_links<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, PathBuf)>,
        to: &Path,
    ) -> Result<(), FileError> {
        let staging = tempfile::Builder::new()
            .prefix("links-")
            .tempdir_in(self.path("staging"))
            .map_err(FileError::on("create", to))?;
        for (path, blob) in files {
            let link = staging.path().join(path);
            let folder = link.parent().unwrap_or(staging.path());
            file::create_dir(folder)?;
            fs::hard_link(&blob, &link).map_err(FileError::on("link", &blob))?;
            file::sync_dir(folder)?;
        }
        fs::set_permissions(
            staging.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .map_err(FileError::on("open up", to))?;
        match fs::rename(staging.path(), to) {
            // Somebody else was faster; the folder's name stands for its content.
            Err(_) if to.is_dir() => return Ok(()),
            result => result.map_err(FileError::on("publish", to))?,
        }
        let _ = staging.keep();
        file::sync_dir(to.parent().unwrap_or(to))
    }

    /// Returns a model if it is here and whole. One with a file missing or of another size is
    /// removed, so that it is fetched again.
    pub fn model(&self, hash: &ContentHash) -> Result<Option<StoredModel>, StoreError> {
        let Some(model) = Self::read_model(&self.record_path(hash))? else {
            return Ok(None);
        };
        let whole = model.record.files.iter().all(|file| {
            fs::metadata(model.dir.join(&file.path)).is_ok_and(|found| found.len() == file.size)
        });
        if whole {
            return Ok(Some(model));
        }
        tracing::warn!(content_hash = %hash, "removing a damaged model");
        self.note_damage(hash)?;
        for file in &model.record.files {
            self.blob(&file.sha256, file.size)?;
        }
        self.remove_model(hash)?;
        Ok(None)
    }

    pub fn models(&self) -> Result<Vec<StoredModel>, StoreError> {
        let mut models = Vec::new();
        for path in entries(&self.path("models"))? {
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                models.extend(Self::read_model(&path)?);
            }
        }
        models.sort_by_key(|model| model.record.content_hash);
        Ok(models)
    }

    fn read_model(record_path: &Path) -> Result<Option<StoredModel>, StoreError> {
        let dir = record_path.with_extension("");
        let Some(json) = file::read_limited(record_path, MAX_RECORD)? else {
            return Ok(None);
        };
        let Ok(record) = serde_json::from_slice::<ModelRecord>(&json) else {
            tracing::warn!(path = %record_path.display(), "ignoring an unreadable record");
            return Ok(None);
        };
        if record.format != record::FORMAT || !dir.is_dir() {
            return Ok(None);
        }
        let used = fs::metadata(record_path).and_then(|found| found.modified());
        let used = used.ok().and_then(|time| Timestamp::try_from(time).ok());
        let last_used = used.unwrap_or(record.added);
        Ok(Some(StoredModel {
            dir,
            record,
            last_used,
        }))
    }

    /// Pins a model for as long as the pin lives; `None` if it is not here.
    pub fn pin(&self, hash: &ContentHash) -> Result<Option<Pin>, StoreError> {
        let path = self.path("pins").join(Self::key(hash));
        let lock = File::create(&path).map_err(FileError::on("open", &path))?;
        // Held by nobody for longer than it takes to remove a folder.
        lock.lock_shared().map_err(FileError::on("lock", &path))?;
        let Some(model) = self.model(hash)? else {
            return Ok(None);
        };
        self.note_use(hash)?;
        Ok(Some(Pin { model, _lock: lock }))
    }

    /// Returns whether something uses a model at this moment.
    pub fn is_pinned(&self, hash: &ContentHash) -> Result<bool, StoreError> {
        let path = self.path("pins").join(Self::key(hash));
        let Ok(lock) = File::open(&path) else {
            return Ok(false);
        };
        match lock.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(FileError::on("lock", &path)(error).into()),
        }
    }

    /// Notes that a model was used now.
    pub fn note_use(&self, hash: &ContentHash) -> Result<(), FileError> {
        let path = self.record_path(hash);
        let now = SystemTime::from(shared::clock::now());
        let touch = || File::options().write(true).open(&path)?.set_modified(now);
        touch().map_err(FileError::on("touch", &path))
    }

    /// Removes a model unless it is pinned; returns whether it is gone.
    pub fn remove_model(&self, hash: &ContentHash) -> Result<bool, StoreError> {
        let path = self.path("pins").join(Self::key(hash));
        let lock = File::create(&path).map_err(FileError::on("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => {
                return Err(FileError::on("lock", &path)(error).into());
            }
        }
        self.take_away(hash)?;
        remove_file(&path)?;
        Ok(true)
    }

    /// Removes a model, pinned or not.
    pub(super) fn take_away(&self, hash: &ContentHash) -> Result<(), StoreError> {
        // The folder first leaves its place as a whole: half a model is never seen.
        let dir = self.model_dir(hash);
        let doomed = self
            .path("staging")
            .join(format!("removed-{}", Self::key(hash)));
        remove_dir(&doomed)?;
        match fs::rename(&dir, &doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::on("remove", &dir)(error).into());
            }
            _ => {}
        }
        remove_file(&self.record_path(hash))?;
        Ok(remove_dir(&doomed)?)
    }

    /// Removes what a crash has left. Only for the sole user of the store.
    pub(super) fn clear_after_crash(&self) -> Result<(), StoreError> {
        for path in entries(&self.path("staging"))? {
            if path.is_dir() {
                remove_dir(&path)?;
            } else if path.extension().is_none_or(|extension| extension != "part") {
                remove_file(&path)?;
            }
        }
        // What an atomic write had not yet renamed.
        for folder in ["", "models", "small", "damaged"] {
            file::clear_temporary(&self.path(folder))?;
        }
        for path in entries(&self.path("models"))? {
            let is_record = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if is_record && !path.with_extension("").is_dir() {
                remove_file(&path)?;
            } else if path.is_dir() && !path.with_extension("json").is_file() {
                remove_dir(&path)?;
            }
        }
        for folder in ["locks", "pins"] {
            for path in entries(&self.path(folder))? {
                if !path.ends_with("users") {
                    remove_file(&path)?;
                }
            }
        }
        Ok(())
    }
}

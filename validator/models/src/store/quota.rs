//! Room on the disk: what is used, what is promised, what goes first.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::PoisonError,
    time::{Duration, SystemTime},
};

use model::ContentHash;
use shared::file::{self, FileError, FileLock};

use super::{Need, Store, StoreError, StoredModel, entries, remove_file};

/// How much of the disk the store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreLimits {
    /// Most bytes of the whole store.
    pub max_disk: Option<u64>,
    /// Bytes to leave free on the file system.
    pub min_free: u64,
}

/// Bytes that the store takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Usage {
    /// Bytes of whole files, each counted once.
    pub blobs: u64,
    /// Of downloads that are not finished.
    pub staging: u64,
}

/// Room promised to a download; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Store,
    keys: Vec<String>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut promised = self.store.promised();
        self.keys.iter().for_each(|key| {
            promised.remove(key);
        });
    }
}

impl Store {
    fn promised(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.shared
            .promised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the store takes now.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (blobs, staging) = (sizes(&self.path("blobs"))?, sizes(&self.path("staging"))?);
        Ok(Usage { blobs, staging })
    }

    /// Promises room for downloads, given by staging key and size, removing what is least useful.
    pub fn reserve(&self, downloads: &[(String, u64)]) -> Result<Reservation, StoreError> {
        {
            let mut promised = self.promised();
            for (key, size) in downloads {
                promised.insert(key.clone(), *size);
            }
        }
        let keys = downloads.iter().map(|(key, _)| key.clone()).collect();
        let reservation = Reservation {
            store: self.clone(),
            keys,
        };
        let needed: u64 = downloads.iter().map(|(_, size)| size).sum();
        self.make_room(needed)?;
        Ok(reservation)
    }

    /// Removes what is least useful until all promises can be kept.
    fn make_room(&self, needed: u64) -> Result<(), StoreError> {
        let Some(mut reason) = self.shortage()? else {
            return Ok(());
        };
        self.remove_strays(SystemTime::UNIX_EPOCH)?;
        for model in self.removable()? {
            match self.shortage()? {
                None => return Ok(()),
                Some(still) => reason = still,
            }
            let hash = model.record.content_hash;
            if self.remove_model(&hash)? {
                tracing::info!(content_hash = %hash, "removed a model to make room");
                self.remove_strays(SystemTime::UNIX_EPOCH)?;
            }
        }
        match self.shortage()? {
            None => Ok(()),
            Some(_) => Err(StoreError::Full {
                root: self.root().to_owned(),
                needed,
                reason,
            }),
        }
    }

    /// Returns the models that may be removed to make room, unless something uses them: the least useful first.
    pub fn removable(&self) -> Result<Vec<StoredModel>, StoreError> {
        let needs = self.needs()?;
        let mut models = self.models()?;
        models.retain(|model| {
            let need = needs.get(&model.record.content_hash);
            !need.is_some_and(|need| need.evaluated)
        });
        models.sort_by(|a, b| {
            usefulness(a, &needs)
                .total_cmp(&usefulness(b, &needs))
                .then_with(|| a.last_used.cmp(&b.last_used))
        });
        Ok(models)
    }

    /// Returns which limit the promises break, in words.
    fn shortage(&self) -> Result<Option<String>, StoreError> {
        let promised = self.promised().clone();
        let mut owed = 0;
        for (key, size) in &promised {
            let part = self.path("staging").join(format!("{key}.part"));
            let blob = key
                .parse()
                .map(|digest| self.blob_path(&digest))
                .unwrap_or_default();
            let here = fs::metadata(blob).or_else(|_| fs::metadata(part));
            owed += size.saturating_sub(here.map_or(0, |found| found.len()));
        }
        let StoreLimits { max_disk, min_free } = self.shared.limits;
        if let Some(max) = max_disk {
            let Usage { blobs, staging } = self.usage()?;
            let total = blobs + staging + owed;
            if total > max {
                return Ok(Some(format!(
                    "the limit is {max} bytes, {total} would be used"
                )));
            }
        }
        let free = file::free_space(self.root())?;
        if free < owed.saturating_add(min_free) {
            let left = free.saturating_sub(owed);
            return Ok(Some(format!(
                "{min_free} bytes have to stay free, {left} would be left"
            )));
        }
        Ok(None)
    }

    /// Removes blobs no model has, and unfinished downloads nobody works on, unless they changed
    /// after `since`... except at the epoch, which spares nothing. Returns the bytes freed.
    pub(crate) fn remove_strays(&self, since: SystemTime) -> Result<u64, StoreError> {
        let everything = since == SystemTime::UNIX_EPOCH;
        let old = |found: &fs::Metadata| {
            everything || found.modified().is_ok_and(|modified| modified < since)
        };
        let mut freed = 0;
        for path in entries(&self.path("blobs"))? {
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            if found.nlink() == 1 && old(&found) && !self.in_use(&path)? {
                remove_file(&path)?;
                freed += found.len();
            }
        }
        for path in entries(&self.path("staging"))? {
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            if old(&found)
                && path.extension().is_some_and(|end| end == "part")
                && !self.in_use(&path)?
            {
                remove_file(&path)?;
                freed += found.len();
            }
        }
        Ok(freed)
    }

    /// Returns whether a download has promised or locked this blob or staging file.
    fn in_use(&self, path: &Path) -> Result<bool, StoreError> {
        let key = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if self.promised().contains_key(&key) {
            return Ok(true);
        }
        let lock = self.path("locks").join(&key);
        if !lock.exists() {
            return Ok(false);
        }
        match FileLock::try_acquire(&lock, "cleaning") {
            Ok(_) => Ok(false),
            Err(file::LockError::Held { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes models nobody refers to, and other strays, that were not used for `grace`.
    pub fn clean(&self, grace: Duration) -> Result<Vec<ContentHash>, StoreError> {
        let now = SystemTime::from(shared::clock::now());
        // A grace beyond the epoch spares everything.
        let Some(since) = now
            .checked_sub(grace)
            .filter(|since| *since > SystemTime::UNIX_EPOCH)
        else {
            return Ok(Vec::new());
        };
        let needs = self.needs()?;
        let mut removed = Vec::new();
        for model in self.models()? {
            let hash = model.record.content_hash;
            let expired = SystemTime::from(model.last_used) < since;
            if expired && !needs.contains_key(&hash) && self.remove_model(&hash)? {
                removed.push(hash);
            }
        }
        self.remove_strays(since)?;
        Ok(removed)
    }
}

/// Orders models for removal: unreferenced ones first, then by weight.
fn usefulness(model: &StoredModel, needs: &BTreeMap<ContentHash, Need>) -> f64 {
    match needs.get(&model.record.content_hash) {
        None => -1.0,
        Some(need) if need.evaluated => f64::INFINITY,
        Some(need) if need.weight.is_finite() => need.weight.max(0.0),
        Some(_) => 0.0,
    }
}

fn sizes(folder: &Path) -> Result<u64, FileError> {
    let mut sum = 0;
    for path in entries(folder)? {
        sum += fs::metadata(&path).map_or(0, |found| if found.is_file() { found.len() } else { 0 });
    }
    Ok(sum)
}

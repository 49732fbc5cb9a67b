//! Fixed tokenizers: one folder of hard links for each commit of a repository that was in use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use shared::file;

use super::{Store, StoreError, entries, remove_dir};
use crate::digest::Digest;

/// So many commits of a repository are kept, those fetched last: a replay may need another than the
/// validator that runs beside it.
const KEPT: usize = 3;

impl Store {
    /// Returns the folder of a tokenizer at a commit, whether it is there or not.
    pub fn tokenizer_dir(&self, repository: &str, commit: &str) -> PathBuf {
        self.tokenizer_root(repository).join(commit)
    }

    fn tokenizer_root(&self, repository: &str) -> PathBuf {
        // `--` can't be in the name of a repository.
        self.path("tokenizers").join(repository.replace('/', "--"))
    }

    /// Returns the tokenizers of a repository that are here, the one fetched last first.
    pub fn tokenizers(&self, repository: &str) -> Vec<PathBuf> {
        let mut commits = entries(&self.tokenizer_root(repository)).unwrap_or_default();
        commits.sort_by_cached_key(|commit| changed_at(commit));
        commits.reverse();
        commits
    }

    /// Returns the tokenizer of a repository that was fetched last.
    pub fn newest_tokenizer(&self, repository: &str) -> Option<PathBuf> {
        self.tokenizers(repository).into_iter().next()
    }

    /// Removes the folder of a tokenizer.
    pub fn remove_tokenizer(&self, dir: &Path) -> Result<(), StoreError> {
        Ok(remove_dir(dir)?)
    }

    /// Adds a tokenizer made of blobs; the oldest ones of the repository go.
    pub fn add_tokenizer(
        &self,
        dir: &Path,
        files: &BTreeMap<String, Digest>,
    ) -> Result<(), StoreError> {
        let root = dir.parent().unwrap_or(dir);
        file::create_dir(root)?;
        let blobs = files
            .iter()
            .map(|(path, digest)| (path.as_str(), self.blob_path(digest)));
        self.publish_links(blobs, dir)?;
        let mut older = entries(root)?;
        older.retain(|other| other != dir);
        older.sort_by_cached_key(|commit| changed_at(commit));
        let surplus = (older.len() + 1).saturating_sub(KEPT);
        for old in older.drain(..surplus) {
            remove_dir(&old)?;
        }
        Ok(())
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    let found = std::fs::metadata(path);
    found.and_then(|found| found.modified()).ok()
}

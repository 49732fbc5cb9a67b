//! Fixed tokenizers: one folder of hard links per repository, of the commit fetched last.

use std::path::{Path, PathBuf};

use shared::file;

use super::{Store, StoreError, entries, remove_dir};
use crate::digest::Digest;

impl Store {
    /// Returns the folder of a tokenizer at a commit, whether it is there or not.
    pub fn tokenizer_dir(&self, repository: &str, commit: &str) -> PathBuf {
        self.tokenizer_root(repository).join(commit)
    }

    fn tokenizer_root(&self, repository: &str) -> PathBuf {
        // `--` can't be in the name of a repository.
        self.path("tokenizers").join(repository.replace('/', "--"))
    }

    /// Returns the tokenizer of a repository that was fetched last.
    pub fn newest_tokenizer(&self, repository: &str) -> Option<PathBuf> {
        let commits = entries(&self.tokenizer_root(repository)).ok()?;
        let changed = |path: &PathBuf| {
            std::fs::metadata(path)
                .and_then(|found| found.modified())
                .ok()
        };
        commits.into_iter().max_by_key(changed)
    }

    /// Adds a tokenizer made of blobs; older ones of the repository go.
    pub fn add_tokenizer(
        &self,
        dir: &Path,
        files: &[(String, Digest)],
    ) -> Result<PathBuf, StoreError> {
        let root = dir.parent().unwrap_or(dir);
        file::create_dir(root)?;
        let blobs = files
            .iter()
            .map(|(path, digest)| (path.as_str(), self.blob_path(digest)));
        self.publish_links(blobs, dir)?;
        for older in entries(root)? {
            if older != dir {
                remove_dir(&older)?;
            }
        }
        Ok(dir.to_owned())
    }
}

//! Looking for damage: sizes always, every byte on demand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::{ContentHash, hash::file_digest};
use shared::file::{self, FileError};

use super::{Store, StoreError, entries, remove_file};
use crate::digest::Digest;

/// How closely a check of the store looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At sizes, names and links.
    Sizes,
    /// At the hash of every file.
    Bytes,
}

/// Something in the store that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The file that is not as it should be.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Store {
    /// Looks for damage and removes what is damaged, so that it is fetched again. `progress` is
    /// told of each file's bytes.
    pub fn check(&self, depth: Depth, progress: impl Fn(u64)) -> Result<Vec<Damage>, StoreError> {
        let mut damage = Vec::new();
        for path in entries(&self.path("blobs"))? {
            let Some(problem) = problem_of_blob(&path, depth)? else {
                progress(fs::metadata(&path).map_or(0, |found| found.len()));
                continue;
            };
            remove_file(&path)?;
            damage.push(Damage { path, problem });
        }
        for model in self.models()? {
            let hash = model.record.content_hash;
            let lost = model.record.files.iter().find(|file| {
                !fs::metadata(self.blob_path(&file.sha256)).is_ok_and(|f| f.len() == file.size)
            });
            if let Some(file) = lost {
                // Its links hold the damaged bytes still.
                self.note_damage(&hash)?;
                self.remove_model(&hash)?;
                let problem = format!("file {:?} is damaged or missing", file.path);
                damage.push(Damage {
                    path: model.dir,
                    problem,
                });
            }
        }
        Ok(damage)
    }
}

impl Store {
    /// Looks at every byte of one model, and removes it with its damaged files if there is damage,
    /// pinned or not, so that it is fetched again. Returns what is wrong with our copy, in one line.
    ///
    /// A worker that finds other bytes than were verified can't tell a bad model from a bad disk:
    /// this can, for every file was compared with its hash before it came here.
    pub fn judge_copy(&self, hash: &ContentHash) -> Result<Option<String>, StoreError> {
        let Some(model) = self.model(hash)? else {
            self.note_damage(hash)?;
            return Ok(Some("it is not in the store, or not whole".to_owned()));
        };
        let mut problem = None;
        let mut doomed = Vec::new();
        for file in &model.record.files {
            let damage = match file_digest(&model.dir.join(&file.path)) {
                Ok(found) if Digest(found) == file.sha256 => continue,
                Ok(found) => format!("{:?} has the SHA-256 {}", file.path, Digest(found)),
                Err(error) => format!("{:?}: {error}", file.path),
            };
            // The blob is the same file by another name.
            doomed.push(self.blob_path(&file.sha256));
            problem = problem.or(Some(damage));
        }
        if problem.is_none() {
            problem = match ContentHash::of_directory(&model.dir) {
                Ok(found) if found == *hash => None,
                Ok(_) => Some("there are other files in its folder".to_owned()),
                Err(error) => Some(error.to_string()),
            };
        }
        if problem.is_some() {
            self.note_damage(hash)?;
            for blob in &doomed {
                remove_file(blob)?;
            }
            self.take_away(hash)?;
        }
        Ok(problem)
    }

    /// Marks a model as damaged, before any of it is removed: whatever happens in between, it is
    /// fetched again.
    pub(super) fn note_damage(&self, hash: &ContentHash) -> Result<(), FileError> {
        file::write_atomic(&self.damage_mark(hash), b"")
    }

    /// Returns whether a model was removed because our copy of it was damaged, and is not back yet.
    pub fn is_damaged(&self, hash: &ContentHash) -> bool {
        self.damage_mark(hash).is_file()
    }
}

fn problem_of_blob(path: &Path, depth: Depth) -> Result<Option<String>, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(expected) = name.parse::<Digest>() else {
        return Ok(Some("its name is not a SHA-256".into()));
    };
    if depth == Depth::Sizes {
        return Ok(None);
    }
    let found = Digest(file_digest(path).map_err(FileError::on("read", path))?);
    Ok((found != expected).then(|| format!("its SHA-256 is {found}")))
}

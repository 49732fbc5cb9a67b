//! Looking for damage: sizes always, every byte on demand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::hash::file_digest;
use shared::file::FileError;

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

fn problem_of_blob(path: &Path, depth: Depth) -> Result<Option<String>, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(expected) = name.parse::<Digest>() else {
        return Ok(Some("its name is no SHA-256".into()));
    };
    if depth == Depth::Sizes {
        return Ok(None);
    }
    let found = Digest(file_digest(path).map_err(FileError::on("read", path))?);
    Ok((found != expected).then(|| format!("its SHA-256 is {found}")))
}

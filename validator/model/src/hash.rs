//! The content hash that binds a model to its chain record.
//!
//! `base64(sha256(concatenated base64(sha256(file))))` over the files in the order of Python's
//! `os.walk`: the files of a directory by name, then its sub-directories by name. Names are not
//! hashed.

use std::{
    cmp::Ordering,
    fmt, fs, io,
    io::Read,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Directories nested deeper are refused; no model needs more than one or two levels.
const MAX_DEPTH: usize = 32;

/// A content hash: 32 bytes, written in base64 (44 characters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Makes one from a raw digest.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Hashes the SHA-256 digests of files, given with their paths relative to the model
    /// directory. The order of the list does not matter.
    pub fn of_files<P: AsRef<Path>>(files: impl IntoIterator<Item = (P, [u8; 32])>) -> Self {
        let mut files: Vec<(P, [u8; 32])> = files.into_iter().collect();
        files.sort_by(|(a, _), (b, _)| walk_order(a.as_ref(), b.as_ref()));
        Self::of_ordered(files.into_iter().map(|(_, digest)| digest))
    }

    /// Reads and hashes every file of a directory. A missing directory hashes like an empty one,
    /// as it does in the Python validator; symlinks to files are followed, those to directories
    /// are not.
    pub fn of_directory(directory: &Path) -> io::Result<Self> {
        let digests = walk(directory)?.into_iter().map(|path| file_digest(&path));
        Ok(Self::of_ordered(digests.collect::<io::Result<Vec<_>>>()?))
    }

    fn of_ordered(digests: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let mut outer = Sha256::new();
        for digest in digests {
            outer.update(BASE64_STANDARD.encode(digest));
        }
        Self(outer.finalize().into())
    }

    /// Binds the hash to a hotkey (its SS58 address), so that a copied commitment does not fit the
    /// copier: `sha256(base64 hash + address)`.
    #[must_use]
    pub fn bound_to(self, hotkey: &str) -> Self {
        Self(Sha256::digest(format!("{self}{hotkey}")).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// The text is not the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a content hash (base64 of 32 bytes)")]
pub struct NotAContentHash;

impl FromStr for ContentHash {
    type Err = NotAContentHash;

    fn from_str(text: &str) -> Result<Self, NotAContentHash> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| NotAContentHash)?;
        bytes.try_into().map(Self).map_err(|_| NotAContentHash)
    }
}

/// Returns the SHA-256 of a file's bytes.
pub fn file_digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&block[..n]),
        }
    }
}

/// Returns the files of a directory in the order in which they are hashed.
pub fn walk(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match walk_into(directory, 0, &mut files) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            Ok(Vec::new())
        }
        walked => walked.map(|()| files),
    }
}

fn walk_into(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories nested too deeply"));
    }
    let mut here = Vec::new();
    let mut below = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let target = fs::metadata(&path)?;
        if target.is_file() {
            here.push(path);
        } else if !target.is_dir() {
            // Reading a pipe would wait for ever.
            return Err(io::Error::other(format!(
                "{} is not a plain file",
                path.display()
            )));
        } else if !path.is_symlink() {
            below.push(path);
        }
    }
    here.sort();
    below.sort();
    files.append(&mut here);
    below
        .iter()
        .try_for_each(|path| walk_into(path, depth + 1, files))
}

/// Orders relative paths as `os.walk` meets them: in one directory, files come before
/// directories, and names follow their bytes.
pub fn walk_order(a: &Path, b: &Path) -> Ordering {
    let names = |path: &Path| -> Vec<Vec<u8>> {
        path.components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name.as_encoded_bytes().to_vec()),
                _ => None,
            })
            .collect()
    };
    let (a, b) = (names(a), names(b));
    let shared = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let is_directory = |path: &[Vec<u8>]| shared + 1 < path.len();
    is_directory(&a)
        .cmp(&is_directory(&b))
        .then_with(|| a[shared..].cmp(&b[shared..]))
}

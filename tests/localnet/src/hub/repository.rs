//! Repositories of the hub: commits, branches, who may read, former names.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::Arc,
};

use git2::{ObjectType, Oid};

use super::Content;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A model: `/api/models/...`, `/{id}/resolve/...`.
    Model,
    /// A dataset: `/api/datasets/...`, `/datasets/{id}/resolve/...`.
    Dataset,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        })
    }
}

/// Who may read a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Public,
    /// Those who accepted the terms: these tokens.
    Gated(Vec<String>),
    /// To all but these tokens it does not exist.
    Private(Vec<String>),
}

/// A file at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub content: Content,
    /// The git object id: of the bytes, or of the LFS pointer.
    pub oid: String,
    /// Whether git holds a pointer only and the CDN the bytes.
    pub lfs: bool,
    /// The size of the pointer.
    pub pointer_size: u64,
}

impl File {
    fn new(path: &str, content: Content) -> Self {
        const LARGE: [&str; 8] = [
            ".safetensors",
            ".bin",
            ".pt",
            ".gguf",
            ".model",
            ".parquet",
            ".gz",
            ".zst",
        ];
        let stored = content
            .bytes()
            .filter(|_| !LARGE.iter().any(|end| path.ends_with(end)));
        let lfs = stored.is_none();
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
            content.sha256(),
            content.size()
        );
        let oid = object_id(
            ObjectType::Blob,
            stored.map_or(pointer.as_bytes(), |bytes| bytes),
        );
        Self {
            oid,
            lfs,
            pointer_size: pointer.len() as u64,
            content,
        }
    }

    /// Returns what the hub calls the file's ETag, without quotes.
    pub fn etag(&self) -> String {
        if self.lfs {
            self.content.sha256()
        } else {
            self.oid.clone()
        }
    }
}

/// A commit: all files of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The full hash, 40 hex digits.
    pub id: String,
    pub files: BTreeMap<String, Arc<File>>,
}

#[derive(Debug, Clone, Default)]
pub struct Repository {
    pub access: Access,
    commits: Vec<Arc<Revision>>,
    branches: BTreeMap<String, String>,
}

impl Repository {
    /// Finds a commit by branch, full hash, or an unambiguous beginning of at least 4 digits.
    pub fn revision(&self, name: &str) -> Option<Arc<Revision>> {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        let name = self.branches.get(name).map_or(name, String::as_str);
        if name.len() < 4 {
            return None;
        }
        let mut found = self
            .commits
            .iter()
            .filter(|commit| commit.id.starts_with(name));
        let first = found.next()?;
        found.next().is_none().then(|| Arc::clone(first))
    }

    /// Returns branches with the hashes they point to.
    pub const fn branches(&self) -> &BTreeMap<String, String> {
        &self.branches
    }

    /// Makes or moves a branch.
    pub fn set_branch(&mut self, branch: &str, revision: &str) {
        self.branches.insert(branch.to_owned(), revision.to_owned());
    }
}

/// All repositories of a hub.
#[derive(Debug, Default)]
pub struct Repositories {
    all: BTreeMap<(Kind, String), Repository>,
    renamed: BTreeMap<(Kind, String), String>,
    tokens: Vec<String>,
}

impl Repositories {
    /// Makes `files` the whole content of a branch and returns the new revision.
    pub fn commit(
        &mut self,
        kind: Kind,
        id: &str,
        branch: &str,
        files: impl IntoIterator<Item = (String, Content)>,
    ) -> String {
        let repository = self.all.entry((kind, id.to_owned())).or_default();
        let files: BTreeMap<_, _> = files
            .into_iter()
            .map(|(path, content)| (path.clone(), Arc::new(File::new(&path, content))))
            .collect();
        let mut text = format!("{kind}/{id}\nafter {} commits\n", repository.commits.len());
        for (path, file) in &files {
            let _ = writeln!(text, "{} {path}", file.oid);
        }
        let revision = object_id(ObjectType::Commit, text.as_bytes());
        repository.commits.push(Arc::new(Revision {
            id: revision.clone(),
            files,
        }));
        repository.set_branch(branch, &revision);
        revision
    }

    pub fn get(&self, kind: Kind, id: &str) -> Option<&Repository> {
        self.all.get(&(kind, id.to_owned()))
    }

    /// Returns a repository for changes.
    pub fn get_mut(&mut self, kind: Kind, id: &str) -> Option<&mut Repository> {
        self.all.get_mut(&(kind, id.to_owned()))
    }

    /// Moves a repository; its former name answers with a relative redirect from now on.
    pub fn rename(&mut self, kind: Kind, from: &str, to: &str) {
        if let Some(repository) = self.all.remove(&(kind, from.to_owned())) {
            self.all.insert((kind, to.to_owned()), repository);
            self.renamed.insert((kind, from.to_owned()), to.to_owned());
        }
    }

    pub fn remove(&mut self, kind: Kind, id: &str) {
        self.all.remove(&(kind, id.to_owned()));
    }

    /// Returns where a repository moved to.
    pub fn new_name(&self, kind: Kind, id: &str) -> Option<&str> {
        self.renamed.get(&(kind, id.to_owned())).map(String::as_str)
    }

    /// Makes a token known, as a logged-in user's.
    pub fn add_token(&mut self, token: &str) {
        self.tokens.push(token.to_owned());
    }

    /// Returns whether a token is a logged-in user's.
    pub fn knows_token(&self, token: &str) -> bool {
        self.tokens.iter().any(|known| known == token)
    }

    /// Finds content by its SHA-256, as the CDN does.
    pub(super) fn by_sha256(&self, sha256: &str) -> Option<Arc<File>> {
        self.all
            .values()
            .flat_map(|repository| &repository.commits)
            .flat_map(|commit| commit.files.values())
            .find(|file| file.lfs && file.content.sha256() == sha256)
            .cloned()
    }

    /// Returns all repositories of a kind.
    pub fn ids(&self, kind: Kind) -> Vec<&str> {
        self.all
            .keys()
            .filter(|(k, _)| *k == kind)
            .map(|(_, id)| id.as_str())
            .collect()
    }
}

/// Git's object id; hashing a slice in memory can't fail.
fn object_id(kind: ObjectType, bytes: &[u8]) -> String {
    Oid::hash_object(kind, bytes)
        .map(|oid| oid.to_string())
        .unwrap_or_default()
}

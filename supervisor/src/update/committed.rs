//! What a commit holds, for telling its code from what lies beside it.

use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid, Repository};

use crate::error::Fault;

/// A commit of our clone, checked out there.
pub(super) struct Committed {
    repository: Repository,
    commit: Oid,
}

impl Committed {
    pub(super) fn of(source: &Path, commit: &str) -> Result<Self, Fault> {
        Ok(Self {
            repository: Repository::open(source)?,
            commit: Oid::from_str(commit)?,
        })
    }

    /// Returns whether a file is of the commit, or of a submodule at the commit that it names. A path
    /// that is not absolute is relative to the workspace, and what a build script wrote there is not of
    /// the commit.
    pub(super) fn holds(&self, file: &Path) -> bool {
        file.is_relative() && self.find(file).unwrap_or(false)
    }

    fn find(&self, file: &Path) -> Result<bool, git2::Error> {
        let tree = self.repository.find_commit(self.commit)?.tree()?;
        for path in file.ancestors().filter(|path| *path != Path::new("")) {
            match tree.get_path(path) {
                Ok(entry) => {
                    let submodule = entry.kind() == Some(ObjectType::Commit);
                    return Ok(path == file || submodule);
                }
                Err(error) if error.code() == ErrorCode::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

//! What the operator has changed in the checkout: commits, and edits that are not committed.
//!
//! What counts as an edit is what git says: clean filters (git-lfs, git-crypt), line ends, sparse
//! checkouts. So git itself is asked, where there is one; libgit2 knows no filters but that of line
//! ends. Either way new objects go into our clone, and nothing is written to the checkout.

use std::{collections::BTreeSet, path::Path};

use git2::{
    Commit, ErrorClass, FileMode, Index, IndexEntry, IndexEntryExtendedFlag, IndexTime, Oid,
    Repository, Signature, Sort, Time, Tree,
};

use super::{git_program, state::LocalChange};
use crate::error::{Blame, Fault};

const MAX_COMMITS: usize = 500;
/// Of paths that a message names.
const MAX_NAMED: usize = 20;
const MAX_SUMMARY: usize = 120;

impl From<git2::Error> for Fault {
    fn from(error: git2::Error) -> Self {
        Self {
            broken_clone: may_be_broken(&error),
            ..Self::new(Blame::Machine, format!("git: {}", error.message()))
        }
    }
}

/// Returns whether a new clone may do where this one failed: whenever it was neither the network
/// nor the disk.
pub(crate) fn may_be_broken(error: &git2::Error) -> bool {
    use ErrorClass::{Callback, Http, Net, Os, Ssh, Ssl};
    !matches!(error.class(), Callback | Http | Net | Os | Ssh | Ssl)
}

/// Finds what the operator has changed: the commits of the checkout that `upstream` does not
/// reach, oldest first, and one last commit with the uncommitted changes. More than can be carried
/// along are refused where they are `wanted`; otherwise the newest are named.
pub(crate) fn find(
    checkout: &Repository,
    source: &Repository,
    upstream: &[Oid],
    wanted: bool,
) -> Result<Vec<LocalChange>, Fault> {
    refuse_unmerged(checkout)?;
    let head = checkout.head()?.peel_to_commit()?.id();
    let mut walk = source.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL)?;
    walk.push(head)?;
    for oid in upstream {
        // One that we do not have hides nothing.
        let _ = walk.hide(*oid);
    }
    let mut changes = Vec::new();
    for (number, oid) in walk.enumerate() {
        if number == MAX_COMMITS {
            if wanted {
                return Err(too_many());
            }
            break;
        }
        let commit = source.find_commit(oid?)?;
        if commit.parent_count() < 2 {
            changes.push(local_change(&commit));
        }
    }
    changes.reverse();
    if let Some(edits) = uncommitted(checkout, source, head)? {
        changes.push(local_change(&source.find_commit(edits)?));
    }
    Ok(changes)
}

fn too_many() -> Fault {
    let text = format!(
        "the checkout has more than {MAX_COMMITS} commits that upstream does not have; \
         none is left out silently"
    );
    Fault::new(Blame::Refused, text)
        .hint("see `git log @{upstream}..`; squash them, or `git pull --rebase`")
}

fn local_change(commit: &Commit<'_>) -> LocalChange {
    LocalChange {
        commit: commit.id().to_string(),
        summary: summary(commit),
    }
}

pub(crate) fn summary(commit: &Commit<'_>) -> String {
    let summary = commit.summary().ok().flatten().unwrap_or_default();
    summary.chars().take(MAX_SUMMARY).collect()
}

/// Refuses to make anything of a checkout with unmerged files.
pub(crate) fn refuse_unmerged(checkout: &Repository) -> Result<(), Fault> {
    let files = match git_program::unmerged(checkout)? {
        Some(files) => files,
        None => conflicting_paths(&checkout.index()?)?,
    };
    if files.is_empty() {
        return Ok(());
    }
    let text = format!("the checkout has unmerged files: {}", named(&files));
    Err(Fault::new(Blame::Refused, text)
        .hint("finish with `git rebase --continue` or give up with `git rebase --abort`"))
}

/// Names some paths.
fn named(files: &BTreeSet<String>) -> String {
    let first: Vec<&str> = files.iter().take(MAX_NAMED).map(String::as_str).collect();
    match files.len().saturating_sub(MAX_NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

pub(crate) fn conflicting_paths(index: &Index) -> Result<BTreeSet<String>, Fault> {
    let mut paths = BTreeSet::new();
    for conflict in index.conflicts()? {
        let conflict = conflict?;
        let sides = [conflict.our, conflict.their, conflict.ancestor];
        if let Some(entry) = sides.into_iter().flatten().next() {
            paths.insert(String::from_utf8_lossy(&entry.path).into_owned());
        }
    }
    Ok(paths)
}

/// Makes a commit of the uncommitted changes to tracked files, in our clone only.
fn uncommitted(
    checkout: &Repository,
    source: &Repository,
    head: Oid,
) -> Result<Option<Oid>, Fault> {
    let (Some(folder), true) = (checkout.workdir(), checkout.path().join("index").exists()) else {
        return Ok(None);
    };
    let parent = source.find_commit(head)?;
    let tree = match git_program::edited_tree(checkout, folder, source)? {
        Some(tree) => tree,
        None => edited_tree(checkout, source)?,
    };
    let tree = keep_submodules(source, &parent.tree()?, tree)?;
    if tree == parent.tree_id() {
        return Ok(None);
    }
    let tree = source.find_tree(tree)?;
    let text = "uncommitted changes of the checkout";
    Ok(Some(commit(source, &tree, &parent, text)?))
}

/// What `git add -u` and `git write-tree` would make, as far as libgit2 knows.
fn edited_tree(checkout: &Repository, source: &Repository) -> Result<Oid, Fault> {
    let reader = Repository::open(checkout.path())?;
    reader.set_odb(&source.odb()?)?;
    let mut index = reader.index()?;
    let absent: BTreeSet<Vec<u8>> = index
        .iter()
        .filter(|entry| {
            let flags = IndexEntryExtendedFlag::from_bits_truncate(entry.flags_extended);
            flags.contains(IndexEntryExtendedFlag::SKIP_WORKTREE)
        })
        .map(|entry| entry.path)
        .collect();
    // One means: skip.
    let mut judge =
        |path: &Path, _: &[u8]| i32::from(absent.contains(path.as_os_str().as_encoded_bytes()));
    index.update_all(["*"], Some(&mut judge))?;
    Ok(index.write_tree_to(source)?)
}

/// Puts submodules back to what `base` has: a checkout may not have them at all.
fn keep_submodules(source: &Repository, base: &Tree<'_>, edited: Oid) -> Result<Oid, Fault> {
    let tree = source.find_tree(edited)?;
    let diff = source.diff_tree_to_tree(Some(base), Some(&tree), None)?;
    let mut index = Index::new()?;
    index.read_tree(&tree)?;
    let mut moved = false;
    for delta in diff.deltas() {
        let (old, new) = (delta.old_file(), delta.new_file());
        if ![old.mode(), new.mode()].contains(&FileMode::Commit) {
            continue;
        }
        moved = true;
        let Some(path) = old.path().or(new.path()) else {
            continue;
        };
        if old.mode() == FileMode::Commit {
            index.add(&submodule(path, old.id()))?;
        } else {
            index.remove_path(path)?;
        }
    }
    if moved {
        return Ok(index.write_tree_to(source)?);
    }
    Ok(edited)
}

fn submodule(path: &Path, id: Oid) -> IndexEntry {
    let zero = IndexTime::new(0, 0);
    IndexEntry {
        ctime: zero,
        mtime: zero,
        dev: 0,
        ino: 0,
        mode: FileMode::Commit.into(),
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_encoded_bytes().to_vec(),
    }
}

/// Commits with the parent's time, so that the same changes make the same commit.
pub(crate) fn commit(
    source: &Repository,
    tree: &Tree<'_>,
    parent: &Commit<'_>,
    message: &str,
) -> Result<Oid, Fault> {
    let time = Time::new(parent.time().seconds(), 0);
    let who = Signature::new("supervisor", "supervisor@localhost", &time)?;
    Ok(source.commit(None, &who, &who, message, tree, &[parent])?)
}

#[cfg(test)]
mod tests;

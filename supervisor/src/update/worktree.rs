//! The operator's commits and edits are put onto the new commit in our clone, never in the checkout.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

use git2::{
    Commit, Delta, DiffOptions, ErrorClass, Index, IndexEntry, IndexTime, ObjectType, Oid,
    Repository, Signature, Sort, SubmoduleUpdateOptions, Time, Tree, TreeWalkMode, TreeWalkResult,
    build::CheckoutBuilder,
};

use sha2::{Digest, Sha256};

use super::state::{LocalChange, Version};
use crate::error::{Blame, Fault};

const MAX_LOCAL_COMMITS: usize = 500;
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
/// reach, oldest first, and one last commit with the uncommitted changes.
pub(crate) fn local_changes(
    checkout: &Repository,
    source: &Repository,
    upstream: &[Oid],
) -> Result<Vec<LocalChange>, Fault> {
    refuse_unmerged(checkout)?;
    let head = checkout.head()?.peel_to_commit()?.id();
    let mut walk = source.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(head)?;
    for oid in upstream {
        // One that we do not have hides nothing.
        let _ = walk.hide(*oid);
    }
    let mut changes = Vec::new();
    for oid in walk.take(MAX_LOCAL_COMMITS) {
        let commit = source.find_commit(oid?)?;
        if commit.parent_count() < 2 {
            changes.push(local_change(&commit));
        }
    }
    if let Some(edits) = uncommitted(checkout, source, head)? {
        changes.push(local_change(&source.find_commit(edits)?));
    }
    Ok(changes)
}

fn local_change(commit: &Commit<'_>) -> LocalChange {
    LocalChange {
        commit: commit.id().to_string(),
        summary: summary(commit),
    }
}

fn summary(commit: &Commit<'_>) -> String {
    let summary = commit.summary().ok().flatten().unwrap_or_default();
    summary.chars().take(MAX_SUMMARY).collect()
}

/// Refuses to make anything of a checkout with unmerged files.
pub(crate) fn refuse_unmerged(checkout: &Repository) -> Result<(), Fault> {
    let files: Vec<String> = conflicting_paths(&checkout.index()?)?.into_iter().collect();
    if files.is_empty() {
        return Ok(());
    }
    let text = format!("the checkout has unmerged files: {}", files.join(", "));
    Err(Fault::new(Blame::Refused, text)
        .hint("finish with `git rebase --continue` or give up with `git rebase --abort`"))
}

fn conflicting_paths(index: &Index) -> Result<BTreeSet<String>, Fault> {
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
    let parent = source.find_commit(head)?;
    let base = checkout.find_commit(head)?.tree()?;
    let mut options = DiffOptions::new();
    options.include_typechange(true).ignore_submodules(true);
    let diff = checkout.diff_tree_to_workdir_with_index(Some(&base), Some(&mut options))?;
    if diff.deltas().len() == 0 {
        return Ok(None);
    }
    let Some(folder) = checkout.workdir() else {
        return Ok(None);
    };
    let mut index = Index::new()?;
    index.read_tree(&parent.tree()?)?;
    for delta in diff.deltas() {
        let Some(path) = delta.new_file().path().or(delta.old_file().path()) else {
            continue;
        };
        match delta.status() {
            Delta::Deleted => index.remove_path(path)?,
            _ => add_file(source, &mut index, folder, path)?,
        }
    }
    let tree = index.write_tree_to(source)?;
    if tree == parent.tree_id() {
        return Ok(None);
    }
    let tree = source.find_tree(tree)?;
    Ok(Some(commit(
        source,
        &tree,
        &parent,
        "uncommitted changes of the checkout",
    )?))
}

fn add_file(
    source: &Repository,
    index: &mut Index,
    folder: &Path,
    path: &Path,
) -> Result<(), Fault> {
    let full = folder.join(path);
    let Ok(meta) = fs::symlink_metadata(&full) else {
        return Ok(index.remove_path(path)?);
    };
    let (mode, id) = if meta.is_symlink() {
        let target = fs::read_link(&full)?;
        (
            0o120_000,
            source.blob(target.as_os_str().as_encoded_bytes())?,
        )
    } else {
        let executable = meta.permissions().mode() & 0o100 != 0;
        (
            if executable { 0o100_755 } else { 0o100_644 },
            source.blob_path(&full)?,
        )
    };
    let zero = IndexTime::new(0, 0);
    index.add(&IndexEntry {
        ctime: zero,
        mtime: zero,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_encoded_bytes().to_vec(),
    })?;
    Ok(())
}

/// Puts local changes onto `upstream` and names the result. Nothing is checked out.
pub(crate) fn combine(
    source: &Repository,
    upstream: Oid,
    local: Vec<LocalChange>,
    signer: Option<String>,
) -> Result<Version, Fault> {
    let mut top = source.find_commit(upstream)?;
    let summary = summary(&top);
    let mut added = Vec::new();
    for change in local {
        let picked = source.find_commit(Oid::from_str(&change.commit)?)?;
        let mut index = source.cherrypick_commit(&picked, &top, 0, None)?;
        if index.has_conflicts() {
            let files: Vec<String> = conflicting_paths(&index)?.into_iter().collect();
            let text = format!(
                "local changes conflict with {upstream:.12} in {}",
                files.join(", ")
            );
            return Err(Fault::new(Blame::Refused, text)
                .hint(
                    "in the checkout run `git pull --rebase --autostash`, then `supervisor update`",
                )
                .on(upstream));
        }
        let tree = index.write_tree_to(source)?;
        // Already upstream.
        if tree != top.tree_id() {
            let message = picked.message().unwrap_or("local change").to_owned();
            let oid = commit(source, &source.find_tree(tree)?, &top, &message)?;
            top = source.find_commit(oid)?;
            added.push(change);
        }
    }
    let release = if top.id() == upstream {
        upstream.to_string()
    } else {
        format!("{upstream}-local-{:.8}", top.tree_id())
    };
    Ok(Version {
        commit: upstream.to_string(),
        release,
        source: top.id().to_string(),
        summary,
        signer,
        build: String::new(),
        local: added,
        left_out: Vec::new(),
    })
}

/// Commits with the parent's time, so that the same changes make the same commit.
fn commit(
    source: &Repository,
    tree: &Tree<'_>,
    parent: &Commit<'_>,
    message: &str,
) -> Result<Oid, Fault> {
    let time = Time::new(parent.time().seconds(), 0);
    let who = Signature::new("supervisor", "supervisor@localhost", &time)?;
    Ok(source.commit(None, &who, &who, message, tree, &[parent])?)
}

/// Returns whether nothing that the build reads differs between two commits. `inputs` are the
/// files the last build is known to have read; beyond those, only prose is taken for harmless.
pub(crate) fn builds_alike(
    source: &Repository,
    old: Oid,
    new: &str,
    inputs: &[String],
) -> Result<bool, Fault> {
    let Ok(old) = source.find_commit(old) else {
        return Ok(false);
    };
    let new = source.find_commit(Oid::from_str(new)?)?;
    let diff = source.diff_tree_to_tree(Some(&old.tree()?), Some(&new.tree()?), None)?;
    let alike = diff.deltas().all(|delta| {
        let files = [delta.old_file().path(), delta.new_file().path()];
        files.into_iter().flatten().all(|path| {
            let read = inputs.iter().any(|input| Path::new(input) == path);
            !read && is_prose(path)
        })
    });
    Ok(alike)
}

/// Returns a digest of the files of a commit that a build may read; see [`builds_alike`].
pub(crate) fn build_inputs(
    source: &Repository,
    commit: &str,
    inputs: &[String],
) -> Result<String, Fault> {
    let tree = source.find_commit(Oid::from_str(commit)?)?.tree()?;
    let mut digest = Sha256::new();
    tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        let path = [folder.as_bytes(), entry.name_bytes()].concat();
        let name = String::from_utf8_lossy(&path);
        let read = inputs.iter().any(|input| *input == *name) || !is_prose(Path::new(&*name));
        if read && entry.kind() != Some(ObjectType::Tree) {
            digest.update(&path);
            digest.update(entry.filemode().to_be_bytes());
            digest.update(entry.id().as_bytes());
        }
        TreeWalkResult::Ok
    })?;
    Ok(hex::encode(digest.finalize()))
}

fn is_prose(path: &Path) -> bool {
    let first = path
        .components()
        .next()
        .and_then(|first| first.as_os_str().to_str());
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    matches!(extension, "md" | "png" | "jpg" | "svg")
        || matches!(first, Some("docs" | ".github"))
        || matches!(name, "LICENSE" | ".gitignore" | "CODEOWNERS")
}

/// Checks a version out into our worktree; files that do not change keep their time, so that
/// cargo rebuilds only what it must.
pub(crate) fn check_out(
    source: &Repository,
    version: &Version,
    origin: Option<&str>,
) -> Result<(), Fault> {
    let commit = source.find_commit(Oid::from_str(&version.source)?)?;
    let mut options = CheckoutBuilder::new();
    options.force().remove_untracked(true);
    source.checkout_tree(commit.as_object(), Some(&mut options))?;
    source.set_head_detached(commit.id())?;
    // Submodules with relative addresses are looked for beside the remote.
    if let Some(origin) = origin {
        match source.find_remote("origin") {
            Ok(_) => source.remote_set_url("origin", origin)?,
            Err(_) => drop(source.remote("origin", origin)?),
        }
    }
    update_submodules(source)
}

fn update_submodules(repository: &Repository) -> Result<(), Fault> {
    for mut submodule in repository.submodules()? {
        let name = String::from_utf8_lossy(submodule.name_bytes()).into_owned();
        let mut options = SubmoduleUpdateOptions::new();
        // Its address may have changed since it was first fetched.
        let update = submodule
            .sync()
            .and_then(|()| submodule.update(true, Some(&mut options)));
        update.map_err(|error| Fault {
            broken_clone: may_be_broken(&error),
            ..Fault::new(
                Blame::Outside,
                format!("submodule {name}: {}", error.message()),
            )
        })?;
        update_submodules(&submodule.open()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prose_is_harmless() {
        for harmless in [
            "README.md",
            "docs/a.html",
            ".github/ci.yml",
            "LICENSE",
            "a/b.png",
        ] {
            assert!(is_prose(Path::new(harmless)), "{harmless}");
        }
        for read in [
            "src/main.rs",
            "Cargo.lock",
            "build.rs",
            "data.json",
            "a/docs/b.txt",
        ] {
            assert!(!is_prose(Path::new(read)), "{read}");
        }
    }
}

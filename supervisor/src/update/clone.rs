//! Our own clone of the repository: made when missing, made anew when broken.
//!
//! It borrows the objects of the operator's checkout and writes nothing there. When that checkout
//! is deleted and cloned again, what was borrowed may be gone. The clone holds nothing that could
//! not be fetched again, so it is thrown away then.

use std::{collections::BTreeSet, fs, path::Path};

use git2::{ErrorCode, Oid, Repository};
use shared::file;

use crate::{error::Fault, home::Home};

/// Largest list of alternates or of shallow roots, in bytes.
const MAX_LIST: u64 = 1 << 20;

/// How names of temporary folders in our clone begin.
pub(crate) const TEMPORARY: &str = "tmp-";
/// References to commits that must stay, by their ids.
const KEPT: &str = "refs/supervisor/have/";
/// Packs from which on they are made one. Each fetch of something new adds one.
const MAX_PACKS: usize = 30;
/// Loose objects from which on they are packed, as for git itself.
const MAX_LOOSE: usize = 6700;

/// Opens our clone, making it first if need be.
pub(crate) fn open(home: &Home, checkout: &Repository) -> Result<Repository, Fault> {
    let folder = home.source();
    remove_stale_files(&folder.join(".git"), &|name| name.starts_with(TEMPORARY));
    let repository = if let Ok(repository) = Repository::open(&folder) {
        repository
    } else {
        discard(&folder)?;
        Repository::init(&folder)?
    };
    borrow_objects(checkout, &repository)?;
    share_shallow_roots(checkout, &repository)?;
    Ok(repository)
}

/// Whoever works with the clone holds our lock, one at a time: a lock or temporary file that is there
/// now was left by one that was killed.
fn remove_stale_files(folder: &Path, is_temporary: &dyn Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_temporary(&name) || name.ends_with(".lock") && !is_folder {
            let removed = if is_folder {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            tracing::warn!(path = %path.display(), ?removed, "a stale file in our clone");
        } else if is_folder && (name == "objects" || folder.ends_with("objects")) {
            // As git and as libgit2 call them.
            remove_stale_files(&path, &|name| {
                name.starts_with("tmp_") || name.contains("_git2_")
            });
        } else if is_folder {
            // References may be called anything.
            remove_stale_files(&path, &|_| false);
        }
    }
}

/// In writing, so that others who open our clone (the checkout, which takes commits from it; git in
/// a build script) see the same objects.
fn borrow_objects(checkout: &Repository, source: &Repository) -> Result<(), Fault> {
    let objects = checkout.commondir().join("objects");
    let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
    let list = source.path().join("objects/info/alternates");
    if file::read_limited(&list, MAX_LIST)?.as_ref() != Some(&line) {
        file::write_atomic(&list, &line)?;
    }
    Ok(())
}

/// Works with our clone; where that fails because the clone is broken, once more with a new one.
pub(crate) fn with<T>(
    home: &Home,
    checkout: &Repository,
    work: impl Fn(&Repository) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let attempt = || work(&open(home, checkout)?);
    match attempt() {
        Err(fault) if fault.broken_clone => {
            tracing::warn!(%fault, "our clone is broken: making it anew");
            discard(&home.source())?;
            attempt()
        }
        done => done,
    }
}

fn discard(folder: &Path) -> Result<(), Fault> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Names commits that are here already, so that they stay and a remote does not send them again.
/// All others are forgotten.
pub(crate) fn keep(source: &Repository, commits: impl Iterator<Item = Oid>) -> Result<(), Fault> {
    let known = commits.filter(|oid| source.find_commit(*oid).is_ok());
    let mut kept: BTreeSet<String> = known.map(|oid| format!("{KEPT}{oid}")).collect();
    // Where history ends, libgit2 and the remote may not agree on what is known.
    if source.is_shallow() {
        kept.clear();
    }
    for reference in source.references_glob(&format!("{KEPT}*"))? {
        let mut reference = reference?;
        let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
        if !kept.remove(&name) {
            reference.delete()?;
        }
    }
    for name in kept {
        let oid = Oid::from_str(&name[KEPT.len()..])?;
        source.reference(&name, oid, true, "")?;
    }
    Ok(())
}

/// Returns whether our clone can be read: its configuration, its index, and what its references
/// point to.
pub(crate) fn is_sound(home: &Home) -> bool {
    let look = || -> Result<(), git2::Error> {
        let source = Repository::open(home.source())?;
        source.config()?.snapshot()?;
        source.index()?;
        match source.head() {
            Err(error) if error.code() != ErrorCode::UnbornBranch => return Err(error),
            _ => {}
        }
        // Those that can't be read are left out by libgit2 where it lists references.
        for name in files(source.path(), "refs") {
            source.refname_to_id(&name)?;
        }
        for reference in source.references()? {
            // A tag may name anything; what it names must be there.
            let object = reference?.peel(git2::ObjectType::Any)?;
            if let Some(commit) = object.as_commit() {
                commit.tree()?;
            }
        }
        Ok(())
    };
    look().is_ok()
}

/// Lists the files below a folder, by their paths from `root` on.
fn files(root: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(&root.join(folder)) {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            found.extend(files(root, &path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Makes one pack of what is worth keeping, when there are many packs or loose objects.
pub(crate) fn tidy(source: &Repository, checkout: &Repository) -> Result<(), Fault> {
    tidy_above(source, checkout, MAX_PACKS, MAX_LOOSE)
}

fn tidy_above(
    source: &Repository,
    checkout: &Repository,
    max_packs: usize,
    max_loose: usize,
) -> Result<(), Fault> {
    if source.is_shallow() {
        return Ok(());
    }
    let folder = source.path().join("objects");
    let packs = names(&folder.join("pack"));
    // Loose objects lie in folders that are called by two hexadecimal digits.
    let loose: Vec<_> = names(&folder)
        .into_iter()
        .filter(|name| name.len() == 2)
        .collect();
    let count: usize = loose
        .iter()
        .map(|name| names(&folder.join(name)).len())
        .sum();
    let is_pack = |name: &&String| {
        let kind = Path::new(name).extension();
        kind.is_some_and(|kind| kind == "pack")
    };
    if packs.iter().filter(is_pack).count() <= max_packs && count <= max_loose {
        return Ok(());
    }
    let mut walk = source.revwalk()?;
    walk.push_glob("refs/*")?;
    if let Ok(head) = source.refname_to_id("HEAD") {
        walk.push(head)?;
    }
    // What the checkout has is borrowed.
    if let Some(head) = checkout.head()?.target() {
        walk.hide(head)?;
    }
    let mut builder = source.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    let mut fresh = BTreeSet::new();
    if builder.object_count() > 0 {
        builder.write(&folder.join("pack"), 0o444)?;
        fresh.extend(
            builder
                .name()
                .ok()
                .flatten()
                .map(|name| format!("pack-{name}")),
        );
    }
    let is_fresh = |name: &str| fresh.iter().any(|fresh| name.starts_with(fresh.as_str()));
    for name in packs.iter().filter(|name| !is_fresh(name)) {
        fs::remove_file(folder.join("pack").join(name))?;
    }
    for name in loose {
        fs::remove_dir_all(folder.join(name))?;
    }
    source.odb()?.refresh()?;
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A shallow checkout ends somewhere; our clone, which sees its objects, must know where.
fn share_shallow_roots(checkout: &Repository, source: &Repository) -> Result<(), Fault> {
    let (from, to) = (
        checkout.commondir().join("shallow"),
        source.path().join("shallow"),
    );
    if !to.exists()
        && let Some(roots) = file::read_limited(&from, MAX_LIST)?
    {
        file::write_atomic(&to, &roots)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

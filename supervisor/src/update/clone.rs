//! Our own clone of the repository: made when missing, made anew when broken.
//!
//! It borrows the objects of the operator's checkout and writes nothing there. When that checkout
//! is deleted and cloned again, what was borrowed may be gone. The clone holds nothing that could
//! not be fetched again, so it is thrown away then.

use std::{fs, path::Path};

use git2::{Oid, Repository};
use shared::file;

use crate::{error::Fault, home::Home};

/// Largest list of alternates or of shallow roots, in bytes.
const MAX_LIST: u64 = 1 << 20;

/// Opens our clone, making it first if need be.
pub(crate) fn open(home: &Home, checkout: &Repository) -> Result<Repository, Fault> {
    let folder = home.source();
    remove_stale_locks(&folder.join(".git"));
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

/// Whoever works with the clone holds our lock, one at a time: a lock file that is there now was left
/// by one that was killed.
fn remove_stale_locks(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Objects are written under names of their own and never locked.
            if entry.file_name() != "objects" {
                remove_stale_locks(&path);
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            let removed = fs::remove_file(&path);
            tracing::warn!(path = %path.display(), ?removed, "a stale lock file in our clone");
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

/// Names commits that are here already, so that a remote does not send them again.
pub(crate) fn offer(source: &Repository, commits: impl Iterator<Item = Oid>) -> Result<(), Fault> {
    // Where history ends, libgit2 and the remote may not agree on what is known.
    if source.is_shallow() {
        return Ok(());
    }
    let known = commits.filter(|oid| source.find_commit(*oid).is_ok());
    for (number, oid) in known.enumerate() {
        let name = format!("refs/supervisor/have/{number}");
        source.reference(&name, oid, true, "")?;
    }
    Ok(())
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

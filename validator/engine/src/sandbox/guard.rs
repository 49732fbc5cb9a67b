//! The worker becomes a process of its own, in namespaces of its own, with a guard outside.
//!
//! The guard is what the validator started; it meets no model. It ends as the worker ends, and takes the worker
//! along when the validator or the guard itself is gone, whatever the worker does. Between the two, where the
//! system allows a namespace of processes, is the first process of it: with it the kernel kills all others.

use std::{io, path::Path};

use nix::{
    sched::CloneFlags,
    unistd::{ForkResult, close},
};
use shared::{
    fork::{follow, fork},
    namespaces::Namespaces,
};

use super::{
    cgroup::Group,
    compile, privileges,
    process::{Watched, die_with_parent, wait},
};

/// Everything but processes, whose numbers a driver must find in `/proc`.
const WORLD: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNS);

/// What is tried, best first. A container that hides parts of `/proc` allows none of its own, and some systems
/// keep user namespaces from programs that they don't know; root needs none.
const TRIES: [CloneFlags; 4] = [
    WORLD
        .union(CloneFlags::CLONE_NEWPID)
        .union(CloneFlags::CLONE_NEWUSER),
    WORLD.union(CloneFlags::CLONE_NEWPID),
    WORLD.union(CloneFlags::CLONE_NEWUSER),
    WORLD,
];

/// Where the worker is.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) namespaces: io::Result<Namespaces>,
    /// Whether it is in the control group.
    pub(super) joined: io::Result<()>,
}

/// Goes on in a new process, the worker; the guard stays here, and removes at the end what the worker leaves.
///
/// # Errors
/// There is no new process: this one goes on.
pub(super) fn split(
    separated: bool,
    group: Option<&Group>,
    cache: Option<&Path>,
) -> io::Result<Split> {
    let parent = Watched::parent();
    shared::process::no_core_dumps()?;
    let mut namespaces = if separated {
        Namespaces::possible(&TRIES, || Ok(()))
    } else {
        Err(io::Error::other("not asked for"))
    };
    if let Ok(possible) = namespaces
        && let Err(error) = possible.enter()
    {
        namespaces = Err(error);
    }
    if let ForkResult::Parent { child } = fork()? {
        stand_by();
        let ended = wait(parent.as_ref(), child);
        if let Some(group) = group {
            group.remove();
        }
        compile::remove_copy(cache);
        follow(ended);
    }
    die_with_parent()?;
    let joined = group.map_or_else(|| Err(io::Error::other("not asked for")), Group::join);
    if namespaces
        .as_ref()
        .is_ok_and(|namespaces| namespaces.of_processes())
    {
        Namespaces::show_processes()?;
        if let ForkResult::Parent { child } = fork()? {
            stand_by();
            follow(wait(None, child));
        }
        die_with_parent()?;
    }
    Ok(Split { namespaces, joined })
}

/// Keeps nothing that waiting does not need; the pipes to the validator end with the worker.
fn stand_by() {
    let _ = privileges::drop_all();
    for descriptor in 0..3 {
        let _ = close(descriptor);
    }
}

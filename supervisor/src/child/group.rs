//! The control group of the child: what it starts stays in it, and ends with it.
//!
//! Two levels, where a group is left to us (`shared::cgroup`): the outer one is killed as a whole, the child runs in
//! the inner one and may make groups beside that for helpers of its own. Nothing of it is remembered: the folder's name
//! comes from the state directory's device and inode, so that every supervisor of it finds the same one. Where there is no
//! such group, descendants are found by the child's process group and by what its environment left them (`control`);
//! one that leaves both escapes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use shared::cgroup::{self, ControlGroup, Delegation, SUBGROUP};

use crate::home::Home;

#[derive(Debug, Clone)]
pub struct ChildGroup {
    outer: ControlGroup,
    inner: ControlGroup,
    path: PathBuf,
}

impl ChildGroup {
    /// Makes it; says why that can't be.
    pub fn of(home: &Home) -> io::Result<Self> {
        let delegation = Delegation::here()?;
        let outer = delegation.folder.join(name(home)?);
        let path = outer.join(SUBGROUP);
        let group = Self {
            outer: ControlGroup::at(outer),
            inner: ControlGroup::at(path.clone()),
            path,
        };
        if delegation.is_inner {
            // Best effort: the child alone needs no limits.
            let _ = ControlGroup::at(delegation.folder).hand_down_limits();
        }
        group.make()?;
        if !group.outer.can_be_killed() {
            group.remove();
            let text = "this kernel can't kill a control group (before 5.14)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(group)
    }

    /// Makes it anew, once nothing is in it: the kernel remembers that a group was killed, and kills what is
    /// started there ([`ControlGroup::fork_into`]).
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.remove();
        self.make()
    }

    fn make(&self) -> io::Result<()> {
        self.outer.make()?;
        self.inner.make()
    }

    /// Where the child belongs.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Kills the child and everything it started. We are never in there: it lies below a group of ours.
    pub fn kill(&self) {
        if let Err(error) = self.outer.kill() {
            tracing::debug!(%error, "could not kill the control group of the child");
        }
    }

    pub fn is_populated(&self) -> bool {
        self.outer.is_populated()
    }

    /// Removes it, once nothing is in it.
    pub fn remove(&self) {
        self.outer.remove();
    }
}

/// Returns the group of a process, if it is that of the child of `home`.
pub fn holding(home: &Home, pid: u32) -> Option<String> {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = cgroup::of(&memberships)?;
    let name = name(home).ok()?;
    path.iter()
        .any(|part| part.to_str() == Some(&name))
        .then(|| path.display().to_string())
}

/// Returns what `status` and `doctor` say of a child in no such group.
pub(crate) fn none(why: &str) -> String {
    format!("none, {why}; what leaves the child's process group is found by its environment")
}

fn name(home: &Home) -> io::Result<String> {
    let folder = fs::metadata(home.path())?;
    Ok(format!(
        "child-{}-{:x}-{:x}",
        home.child_name(),
        folder.dev(),
        folder.ino()
    ))
}

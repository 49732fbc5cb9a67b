//! Control groups (version 2): below which one groups of our own may be made, and what is done with these.
//!
//! A group belongs to whoever made it. Left to us are that of a systemd unit with `Delegate=`, which systemd marks
//! (<https://systemd.io/CGROUP_DELEGATION>), also where `DelegateSubgroup=supervisor` has put us one level below it,
//! and the root: systemd leaves no process there, so it is that of a container or of a system without systemd.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use nix::unistd::ForkResult;

use crate::fork;

/// The group of the supervisor, by the name that `scripts/finetune-vali.service` gives it, and that of its child: a
/// process in a group of this name may make groups beside it.
pub const SUBGROUP: &str = "supervisor";

/// How systemd marks what it delegates, for everybody and for root.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// A group below which this process may make others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    pub folder: PathBuf,
    /// Whether processes are below it only, so that controllers can be handed down.
    pub is_inner: bool,
}

impl Delegation {
    /// Finds that of this process.
    pub fn here() -> io::Result<Self> {
        Self::find(
            &fs::read_to_string("/proc/self/mountinfo")?,
            &fs::read_to_string("/proc/self/cgroup")?,
        )
    }

    /// Finds that of a process whose mounts and memberships the kernel tells so, see proc_pid_mountinfo(5) and
    /// cgroups(7).
    pub fn find(mounts: &str, memberships: &str) -> io::Result<Self> {
        let no = |text: &str| io::Error::new(io::ErrorKind::Unsupported, text.to_owned());
        let group = of(memberships)
            .and_then(|own| Some((own, folder(mounts, own)?)))
            .ok_or_else(|| no("this system has no control groups of version 2"));
        let (own, folder) = group?;
        if own.file_name().is_some_and(|name| name == SUBGROUP)
            && let Some(unit) = folder.parent()
        {
            return Ok(Self {
                folder: unit.to_owned(),
                is_inner: true,
            });
        }
        if own == Path::new("/") || is_marked(&folder) {
            return Ok(Self {
                folder,
                is_inner: false,
            });
        }
        Err(no(
            "no control group is left to us: see Delegate in finetune-vali.service",
        ))
    }
}

/// Returns the group of a process by the line that the kernel has of it.
pub fn of(memberships: &str) -> Option<&Path> {
    let lines = &mut memberships.lines();
    lines
        .find_map(|line| line.strip_prefix("0::"))
        .map(Path::new)
}

fn folder(mounts: &str, group: &Path) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let below = group.strip_prefix(root).ok()?;
        (kind.split(' ').next() == Some("cgroup2")).then(|| Path::new(point).join(below))
    })
}

fn is_marked(folder: &Path) -> bool {
    MARKS
        .iter()
        .any(|mark| xattr::get(folder, mark).is_ok_and(|value| value.as_deref() == Some(b"1")))
}

/// A group that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    pub const fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Makes it, unless it is there.
    pub fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    pub fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(self.0.join(file))?;
        file.write_all(value.as_bytes())
    }

    /// Lets the groups below it have limits of memory and threads.
    pub fn hand_down_limits(&self) -> io::Result<()> {
        let handed = self.set("cgroup.subtree_control", "+memory +pids");
        handed.map_err(|error| {
            let folder = self.0.display();
            let text = format!("memory and threads can't be limited below {folder}: {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// Goes on as a copy of this process that is in it, which takes 0.3 ms where [`join`](Self::join) takes 6 to 21. This
    /// process must have one thread; it stays outside.
    ///
    /// The copy may be killed at once: Linux 6.18 compares how often the group was killed as a whole with how often the one
    /// that we are in was (`cgroup_css_set_fork`, `cgroup_post_fork`).
    pub fn fork_into(&self) -> io::Result<ForkResult> {
        fork::fork_into(&fs::File::open(&self.0)?)
    }

    /// Moves this process into it. The kernel waits until every CPU has passed a quiet state (`cgroup_attach_lock`).
    pub fn join(&self) -> io::Result<()> {
        self.set("cgroup.procs", "0")
    }

    /// Returns whether all of it can be killed at once, which kernels before 5.14 can't.
    pub fn can_be_killed(&self) -> bool {
        self.0.join("cgroup.kill").exists()
    }

    /// Kills all processes in it and below it, also those being started.
    pub fn kill(&self) -> io::Result<()> {
        self.set("cgroup.kill", "1")
    }

    /// Returns whether a process in it or below it runs. Zombies do not count.
    pub fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Removes it and those below it, as far as they have no processes.
    pub fn remove(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                Self(entry.path()).remove();
            }
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:25 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
32 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw
";

    fn found(mounts: &str, memberships: &str) -> Option<(PathBuf, bool)> {
        let found = Delegation::find(mounts, memberships).ok()?;
        Some((found.folder, found.is_inner))
    }

    #[test]
    fn only_a_group_that_is_left_to_us_is_used() {
        let root = Some((PathBuf::from("/sys/fs/cgroup/unified"), false));
        assert_eq!(found(HYBRID, "4:memory:/x\n0::/\n"), root);
        let unit = PathBuf::from("/sys/fs/cgroup/unified/system.slice/a.service");
        let below = "0::/system.slice/a.service/supervisor\n";
        assert_eq!(found(HYBRID, below), Some((unit, true)));
        // A container that sees a part of the hierarchy.
        let part = "40 30 0:27 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw";
        let at = PathBuf::from("/sys/fs/cgroup/a");
        assert_eq!(found(part, "0::/docker/1/a/supervisor\n"), Some((at, true)));
        for others in [
            "",
            "1:cpu:/",
            "0::/system.slice/other.service",
            "0::/supervisor.slice/x",
        ] {
            assert_eq!(found(HYBRID, others), None, "{others}");
        }
        assert_eq!(found("", "0::/"), None);
        assert_eq!(found(part, "0::/docker/2"), None);
    }
}

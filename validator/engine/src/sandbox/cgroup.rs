//! The wall around memory and threads that the kernel counts: a control group (version 2) of the worker's own.
//!
//! It is made beside the validator's, in a group that the system leaves to us: that of a systemd unit with
//! `Delegate=memory pids` and `DelegateSubgroup=supervisor`, as `scripts/finetune-vali.service` has them. Other
//! groups belong to somebody else. Limits of resources hold everywhere, but shared memory is not in them.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process,
};

/// Where the groups are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The group of the supervisor and the validator, by the name that the unit gives it.
const OURS: &str = "supervisor";

const NAME: &str = "eval-worker-";

/// Threads of a worker and its guard: those of pools and drivers are hundreds.
const MAX_THREADS: u32 = 4096;

#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    memory: u64,
}

impl Group {
    /// Makes one with so many bytes of memory. `memberships` is what the kernel says of this process.
    pub(super) fn new(root: &Path, memberships: &str, memory: u64) -> io::Result<Self> {
        let unsupported = |text: &str| io::Error::new(io::ErrorKind::Unsupported, text.to_owned());
        let own = memberships
            .lines()
            .find_map(|line| line.strip_prefix("0::/"));
        let own =
            own.ok_or_else(|| unsupported("this system has no control groups of version 2"))?;
        let ours = Path::new(own);
        let unit = ours
            .parent()
            .filter(|_| ours.file_name().is_some_and(|name| name == OURS));
        let unit = unit.ok_or_else(|| {
            unsupported("no control group is left to us: see Delegate in finetune-vali.service")
        })?;
        let unit = root.join(unit);
        for entry in fs::read_dir(&unit)?.flatten() {
            // Those that still have processes stay.
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        set(&unit.join("cgroup.subtree_control"), "+memory +pids")?;
        let group = Self {
            folder: unit.join(format!("{NAME}{}", process::id())),
            memory,
        };
        fs::create_dir(&group.folder)?;
        let limits = [
            ("memory.max", memory.to_string()),
            ("pids.max", MAX_THREADS.to_string()),
        ];
        for (name, value) in limits {
            if let Err(error) = set(&group.folder.join(name), &value) {
                group.remove();
                return Err(error);
            }
        }
        // Missing where there is no swap.
        let _ = set(&group.folder.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// Moves this process into it.
    pub(super) fn join(&self) -> io::Result<()> {
        set(&self.folder.join("cgroup.procs"), "0")
    }

    /// Ends what is left in it, and removes it.
    pub(super) fn remove(&self) {
        let _ = set(&self.folder.join("cgroup.kill"), "1");
        let _ = fs::remove_dir(&self.folder);
    }

    pub(super) fn words(&self) -> String {
        format!("{} MiB of memory, {MAX_THREADS} threads", self.memory >> 20)
    }
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_that_is_left_to_us_is_used() {
        let root = tempfile::tempdir().unwrap();
        for memberships in [
            "",
            "1:cpu:/",
            "0::/",
            "0::/system.slice/other.service",
            "0::/supervisor.slice/x",
        ] {
            let error = Group::new(root.path(), memberships, 1 << 30).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{memberships}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // Where it is left to us, controllers are switched on first: here nothing can.
        fs::create_dir_all(root.path().join("a.service/supervisor")).unwrap();
        let error = Group::new(root.path(), "1:cpu:/\n0::/a.service/supervisor\n", 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            fs::read_dir(root.path().join("a.service")).unwrap().count(),
            1
        );
    }
}

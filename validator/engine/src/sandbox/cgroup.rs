//! The wall around memory and threads that the kernel counts: a control group (version 2) of the worker's own.
//!
//! It is made beside the validator's, in a group that is left to us (`shared::cgroup`): that which the supervisor has
//! made for its child, or a systemd unit as `scripts/finetune-vali.service` is. Limits of resources hold everywhere,
//! but shared memory is not in them.

use std::{fs, io, process};

use shared::cgroup::{ControlGroup, Delegation};

const NAME: &str = "eval-worker-";

/// Threads of a worker and its guard: those of pools and drivers are hundreds.
const MAX_THREADS: u32 = 4096;

#[derive(Debug)]
pub(super) struct Group {
    group: ControlGroup,
    memory: u64,
}

impl Group {
    /// Makes one with so many bytes of memory.
    pub(super) fn new(delegation: &Delegation, memory: u64) -> io::Result<Self> {
        if !delegation.is_inner {
            let text = "processes are beside it: see DelegateSubgroup in finetune-vali.service";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let unit = &delegation.folder;
        for entry in fs::read_dir(unit)?.flatten() {
            // Those that still have processes stay.
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        ControlGroup::at(unit.clone()).hand_down_limits()?;
        let group = ControlGroup::at(unit.join(format!("{NAME}{}", process::id())));
        group.make()?;
        let limits = [
            ("memory.max", memory.to_string()),
            ("pids.max", MAX_THREADS.to_string()),
        ];
        for (name, value) in limits {
            if let Err(error) = group.set(name, &value) {
                group.remove();
                return Err(error);
            }
        }
        // Missing where there is no swap.
        let _ = group.set("memory.swap.max", "0");
        Ok(Self { group, memory })
    }

    /// Moves this process into it.
    pub(super) fn join(&self) -> io::Result<()> {
        self.group.join()
    }

    /// Ends what is left in it, and removes it.
    pub(super) fn remove(&self) {
        let _ = self.group.kill();
        self.group.remove();
    }

    pub(super) fn words(&self) -> String {
        format!("{} MiB of memory, {MAX_THREADS} threads", self.memory >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_switched_on_before_a_group_is_made() {
        let unit = tempfile::tempdir().unwrap();
        let failure = |is_inner| {
            let folder = unit.path().to_owned();
            let delegation = Delegation { folder, is_inner };
            Group::new(&delegation, 1).unwrap_err().kind()
        };
        // Nothing can be switched on in a plain folder, nor in a group with processes.
        assert_eq!(failure(true), io::ErrorKind::NotFound);
        assert_eq!(failure(false), io::ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(unit.path()).unwrap().count(), 0);
    }
}

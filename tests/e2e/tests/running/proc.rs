//! What the kernel knows of a process: its children, memory and CPU time.

use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second, the same on every Linux.
const TICKS: u64 = 100;

/// Returns the pids of a process's children.
fn children(pid: u32) -> Vec<u32> {
    let mut pids = Vec::new();
    // A child belongs to the thread that made it; a thread may end while we look.
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        pids.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap()),
        );
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Returns the pids of all processes below one: a validator's workers and the guards between.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// Returns the pids of a validator's workers: the processes below it that have none below them.
pub(crate) fn workers(pid: u32) -> Vec<u32> {
    let mut found = descendants(pid);
    found.retain(|&pid| children(pid).is_empty());
    found
}

/// Whether a process is there and does not only wait to be reaped.
pub(crate) fn is_alive(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = text.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| state != 'Z')
}

/// Returns the resident memory of a process in KiB; 0 if it is gone.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

/// Returns the most resident memory that a process had, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Returns the CPU time a process has used, in user and system mode.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in brackets may hold anything; fields are counted from behind it.
    let (_, fields) = text.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

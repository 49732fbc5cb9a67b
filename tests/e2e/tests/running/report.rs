//! What a soak found, for people.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Resident memory after each step, in KiB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    validator: Vec<u64>,
    worker: Vec<u64>,
}

/// What a soak found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) steps: usize,
    pub(crate) events: BTreeMap<String, u32>,
    pub(crate) sets: usize,
    /// Blocks by which each weight set came late.
    pub(crate) lateness: Vec<u64>,
    pub(crate) missed: usize,
    /// Losses recorded, and how many of them more than once.
    pub(crate) recorded: usize,
    pub(crate) again: usize,
    pub(crate) restarts: Vec<Duration>,
    pub(crate) memory: Memory,
    /// Share of a CPU, if it was measured.
    pub(crate) idle: Option<f64>,
}

impl Memory {
    pub(crate) fn note(&mut self, validator: u64, worker: u64) {
        // Between a worker's death and our look there is none.
        self.validator
            .extend(Some(validator).filter(|kib| *kib > 0));
        self.worker.extend(Some(worker).filter(|kib| *kib > 0));
    }

    /// Returns whether neither process has grown by a tenth from the first quarter to the last.
    pub(crate) fn is_flat(&self) -> bool {
        [&self.validator, &self.worker]
            .into_iter()
            .map(|kib| quarters(kib))
            .all(|(first, last)| last <= first + first / 10)
    }
}

/// Returns the medians of the first and the last quarter.
fn quarters(values: &[u64]) -> (u64, u64) {
    let quarter = values.len().div_ceil(4);
    let last = values.len() - quarter;
    (median(&values[..quarter]), median(&values[last..]))
}

fn median<T: Copy + Ord + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(f, "\n{} steps; what happened:", self.steps)?;
        for (event, times) in &self.events {
            writeln!(f, "  {times:>4} {event}")?;
        }
        let in_time = self.lateness.iter().filter(|blocks| **blocks <= 3).count();
        writeln!(
            f,
            "weights: {} sets, {} windows missed, {in_time} of {} within 3 blocks of due, worst {} \
             (blocks of outages not counted)",
            self.sets,
            self.missed,
            self.lateness.len(),
            self.lateness.iter().max().unwrap_or(&0),
        )?;
        writeln!(
            f,
            "losses: {} recorded, {} of them computed again",
            self.recorded, self.again
        )?;
        writeln!(
            f,
            "start to first losses: median {:.1} s, worst {:.1} s of {}",
            median(&self.restarts).as_secs_f64(),
            self.restarts
                .iter()
                .max()
                .copied()
                .unwrap_or_default()
                .as_secs_f64(),
            self.restarts.len(),
        )?;
        for (name, kib) in [
            ("validator", &self.memory.validator),
            ("worker", &self.memory.worker),
        ] {
            let (first, last) = quarters(kib);
            writeln!(
                f,
                "resident memory, {name}: first quarter {:.1} MiB, last {:.1} MiB, by tenths{}",
                mib(first),
                mib(last),
                kib.chunks(kib.len().div_ceil(10).max(1))
                    .map(|tenth| format!(" {:.1}", mib(median(tenth))))
                    .collect::<String>()
            )?;
        }
        if let Some(share) = self.idle {
            writeln!(f, "CPU while idle: {:.2} %", share * 100.0)?;
        }
        Ok(())
    }
}

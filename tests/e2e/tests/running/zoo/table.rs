//! The table of `docs/hostile.md`: as it should be, and as it is.

use std::{collections::BTreeMap, fmt, fmt::Write as _, fs};

/// Longer reasons are cut.
const MAX_REASON: usize = 90;

/// What became of a specimen, and what it cost.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    name: String,
    /// Where its way ended, and why.
    verdict: String,
    kib: u64,
    seconds: f64,
    mib: u64,
}

impl Row {
    pub(crate) fn new(
        name: &str,
        place: &str,
        why: &str,
        kib: u64,
        seconds: f64,
        mib: u64,
    ) -> Self {
        let plain: String = why
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut short: String = plain.chars().take(MAX_REASON).collect();
        if short.len() < plain.len() {
            short.push('…');
        }
        let verdict = format!("{place} | {}", short.replace('|', "\\|"));
        Self {
            name: name.to_owned(),
            verdict,
            kib,
            seconds,
            mib,
        }
    }
}

/// Rounds up to a power of two.
fn bound(measured: u64, least: u64) -> u64 {
    (measured + 1).next_power_of_two().max(least)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            verdict,
            kib,
            seconds,
            mib,
        } = self;
        let seconds = [1.0, 2.0, 5.0, 10.0, 20.0]
            .into_iter()
            .find(|s| seconds < s);
        let seconds = seconds.unwrap_or(60.0);
        // What is resident depends on the threads, and on what was so before.
        let (kib, mib) = (bound(*kib, 8), bound(2 * *mib, 128));
        write!(f, "| {name} | {verdict} | {kib} | {seconds} | {mib} |")
    }
}

/// Compares what was found with the documentation: verdicts are those, and nothing cost more.
pub(crate) fn compare(found: &[(&str, Vec<Row>)]) {
    let path = e2e::workspace().join("docs/hostile.md");
    let documented = fs::read_to_string(&path).unwrap_or_default();
    let lines = documented.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let name = cells.first()?.strip_prefix("| ")?;
        Some((name, line))
    });
    let lines: BTreeMap<&str, &str> = lines.collect();
    let mut wrong = Vec::new();
    for row in found.iter().flat_map(|(_, rows)| rows) {
        let Some(line) = lines.get(row.name.as_str()) else {
            wrong.push(format!("no row: {row}"));
            continue;
        };
        let cells: Vec<&str> = line.trim_end_matches(" |").rsplitn(4, " | ").collect();
        let most = |cell: usize| cells[cell].parse::<u64>().unwrap();
        let verdict = format!("| {} | {}", row.name, row.verdict);
        if cells[3] != verdict {
            wrong.push(format!("{line}\n  is now {row}"));
        }
        if row.kib > most(2) || row.mib > most(0) {
            wrong.push(format!("{line}\n  cost {} KiB, {} MiB", row.kib, row.mib));
        }
    }
    let rows: usize = found.iter().map(|(_, rows)| rows.len()).sum();
    if !wrong.is_empty() {
        let written = e2e::target_folder().join("tmp/hostile.md");
        shared::file::write_atomic(&written, markdown(found).as_bytes()).unwrap();
        panic!(
            "{} of {rows} rows of docs/hostile.md are not what was found; {} has them all:\n{}",
            wrong.len(),
            written.display(),
            wrong.join("\n")
        );
    }
    assert!(rows >= 150, "{rows}");
}

fn markdown(found: &[(&str, Vec<Row>)]) -> String {
    let mut text = String::new();
    for (group, rows) in found {
        let _ = writeln!(text, "\n## {group}\n");
        let _ = writeln!(text, "| what | where it ends | why | KiB | s | MiB |");
        let _ = writeln!(text, "|---|---|---|---|---|---|");
        for row in rows {
            let _ = writeln!(text, "{row}");
        }
    }
    text
}

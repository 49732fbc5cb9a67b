//! Logs rows of 256 models while W&B is away and prints what that took, as one line of JSON.
#![expect(clippy::print_stdout, reason = "the measurements are the output")]

use std::{collections::BTreeMap, error::Error, path::PathBuf, time::Instant};

use clap::Parser;
use report::wandb::{
    Logger, LoggerSettings,
    row::{Cell, Row},
};
use serde_json::json;

#[derive(Debug, Parser)]
struct Args {
    /// Folder for the run.
    #[arg(long)]
    folder: PathBuf,
    /// Rows to log.
    #[arg(long, default_value_t = 1000)]
    rows: u64,
    /// Bytes of the texts of a row, such as sampled answers.
    #[arg(long, default_value_t = 100_000)]
    text_bytes: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut logger = Logger::new(LoggerSettings {
        // Nobody listens there.
        base_url: "http://127.0.0.1:9".parse()?,
        key: Some("k".repeat(40)),
        entity: None,
        project: "bench".into(),
        folder: args.folder,
        max_steps_per_run: None,
        name: "bench".into(),
        config: Vec::new(),
        sign: None,
    });
    logger.log(0, row(0, args.text_bytes))?;
    let resident = memory("VmRSS:")?;
    let (began, mut longest) = (Instant::now(), 0.0_f64);
    for step in 1..args.rows {
        let (row, one) = (row(step, args.text_bytes), Instant::now());
        logger.log(step, row)?;
        longest = longest.max(one.elapsed().as_secs_f64());
        tokio::task::yield_now().await;
    }
    let per_row = began.elapsed().as_secs_f64() / args.rows as f64;
    println!(
        "{}",
        json!({
            "rows": args.rows,
            "ms_per_row": per_row * 1e3,
            "longest_ms": longest * 1e3,
            "queue_mib": (memory("VmHWM:")? - resident) / 1024.0,
        })
    );
    Ok(())
}

/// A row as a step with 256 models makes it.
fn row(step: u64, text_bytes: usize) -> Row {
    let numbers = || -> Cell {
        let uids = (0..256).map(|uid| {
            (
                uid.to_string(),
                Cell::Number(step as f64 + 1.0 / f64::from(uid + 1)),
            )
        });
        Cell::Map(uids.collect::<BTreeMap<_, _>>())
    };
    let names = [
        "uid_data",
        "perplexity_data",
        "win_rate_data",
        "win_total_data",
        "weight_data",
    ];
    let mut row: Row = names
        .iter()
        .map(|name| ((*name).to_owned(), numbers()))
        .collect();
    row.insert("original_format_json".into(), "x".repeat(text_bytes).into());
    row
}

/// Returns a line of `/proc/self/status` in KiB.
fn memory(field: &str) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("the kernel tells no memory")?.parse()?)
}

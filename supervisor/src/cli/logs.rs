//! `logs`: the child's log, and how it grows.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use shared::{Exit, Failure};

use super::query::{Which, ask, home};
use crate::control::{Reply, Request};

/// Between looks at a log that is followed.
const FOLLOW: Duration = Duration::from_millis(200);
/// The beginning is looked for in no more than this much of the end.
const MAX_TAIL: u64 = 1 << 20;

#[derive(Debug, Clone, Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Go on as the log grows
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Number of lines to begin with
    #[arg(short = 'n', long, default_value_t = 50)]
    pub(super) lines: usize,
    /// Show the log of the last build instead
    #[arg(long)]
    pub(super) build: bool,
}

/// Prints the end of the log, and goes on if asked to.
pub(super) fn run(options: &LogsArgs) -> Result<Exit, Failure> {
    let path = path(options)?;
    let failed = |error: io::Error| match error.kind() {
        // A reader such as `head` has had enough.
        io::ErrorKind::BrokenPipe => Failure::new(Exit::Ok, ""),
        _ => Failure::new(Exit::Failed, format!("could not read {}", path.display()))
            .caused_by(&error),
    };
    let mut file = File::open(&path).map_err(failed)?;
    let outcome = tail(&mut file, options.lines).and_then(|()| {
        if options.follow {
            follow(&path, file)
        } else {
            Ok(())
        }
    });
    match outcome.map_err(failed) {
        Err(failure) if failure.exit() == Exit::Ok => Ok(Exit::Ok),
        Err(failure) => Err(failure),
        Ok(()) => Ok(Exit::Ok),
    }
}

/// Asks the supervisor where the log is; without one it is where it is by default.
fn path(options: &LogsArgs) -> Result<PathBuf, Failure> {
    let home = home(&options.which)?;
    let log = if let Ok(Reply::Status(report)) = ask(&home, &Request::Status) {
        PathBuf::from(report.log)
    } else {
        home.child_log()
    };
    if !options.build {
        return Ok(log);
    }
    let stem = log
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(log.with_file_name(format!("{stem}-build.log")))
}

fn tail(file: &mut File, lines: usize) -> io::Result<()> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MAX_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL).read_to_end(&mut bytes)?;
    let ends = bytes
        .iter()
        .enumerate()
        .rev()
        .filter(|(at, byte)| **byte == b'\n' && at + 1 < bytes.len());
    let from = match lines.checked_sub(1) {
        Some(skip) => ends.map(|(at, _)| at + 1).nth(skip).unwrap_or(0),
        None => bytes.len(),
    };
    write(&bytes[from..])
}

fn follow(path: &Path, mut file: File) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    loop {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        write(&bytes)?;
        if bytes.is_empty() {
            // Rotated: another file has taken the name.
            if let Ok(meta) = path.metadata()
                && meta.ino() != file.metadata()?.ino()
            {
                file = File::open(path)?;
                continue;
            }
            runtime.block_on(async { tokio::time::sleep(FOLLOW).await });
        }
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

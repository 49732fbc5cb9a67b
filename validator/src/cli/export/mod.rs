//! `validator export`: tables of the records for other programs.

mod formats;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use clap::{Args, ValueEnum};
use index::{Index, IndexError};
use serde::Serialize;
use shared::{Exit, Failure, cli::FullPath};

use self::formats::{Column, ColumnKind, Writer};
use super::flags::{OwnFlags, index_failure};

/// Rows kept of what has no step; the index holds no more.
const ALL: usize = 1 << 20;

/// Write a table of the records for other programs
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What to write
    #[arg(value_name = "TABLE")]
    what: Table,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    format: FileFormat,
    /// Write to this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<FullPath>,
    #[command(flatten)]
    own: OwnFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    /// A row a step
    Steps,
    /// A row for each model of each step
    Verdicts,
    /// A row for each loss of each sample, of the newest steps
    Losses,
    /// Commitments that were refused
    Refusals,
    /// A row for each uid of each weight set
    Weights,
    /// Models that failed
    Faults,
    /// Problems of the validator
    Health,
    /// Our validator trust
    Trust,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Comma-separated values; a text that a spreadsheet would compute is quoted by an apostrophe
    Csv,
    /// One JSON object a line
    Jsonl,
    /// Apache Parquet
    Parquet,
}

/// Why an export ended early.
enum Broken {
    Index(IndexError),
    Output(io::Error),
}

impl From<IndexError> for Broken {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Failure> {
    let index = args.own.index()?;
    let output: Box<dyn Write + Send> = match &args.output {
        None if args.format == FileFormat::Parquet => {
            return Err(Failure::new(
                Exit::Usage,
                "a Parquet file is not for a terminal or a pipe",
            )
            .hint("name a file with --output FILE"));
        }
        None => Box::new(io::stdout()),
        Some(path) => Box::new(File::create(&**path).map_err(|error| {
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::Denied,
                _ => Exit::Machine,
            };
            Failure::new(exit, format_args!("could not write {}", path.display())).caused_by(&error)
        })?),
    };
    let written = Writer::new(args.format, args.what.columns(), BufWriter::new(output))
        .map_err(Broken::from)
        .and_then(|mut writer| {
            args.what.write(&index, &mut writer)?;
            Ok(writer.finish()?)
        });
    match written {
        Ok(()) => Ok(Exit::Ok),
        // `head` has seen enough.
        Err(Broken::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        Err(Broken::Output(error)) => {
            Err(Failure::new(Exit::Machine, "could not write the table").caused_by(&error))
        }
        Err(Broken::Index(error)) => Err(index_failure(&error)),
    }
}

impl Table {
    fn columns(self) -> &'static [Column] {
        use ColumnKind::{Flag, Number, Text, Whole};
        match self {
            Self::Steps => &[
                ("step", Whole),
                ("competition", Text),
                ("block", Whole),
                ("started", Text),
                ("finished", Text),
                ("seconds", Number),
                ("digest", Text),
                ("samples", Whole),
                ("seed_block", Whole),
                ("cached_age", Whole),
                ("version", Text),
                ("device", Text),
                ("dtype", Text),
                ("models", Whole),
                ("refused", Whole),
            ],
            Self::Verdicts => &[
                ("step", Whole),
                ("competition", Text),
                ("uid", Whole),
                ("hotkey", Text),
                ("model", Text),
                ("committed", Whole),
                ("content", Text),
                ("parameters", Whole),
                ("outcome", Text),
                ("copy_of", Whole),
                ("fault", Text),
                ("reason", Text),
                ("loss", Number),
                ("finite", Whole),
                ("samples", Whole),
                ("win_rate", Number),
                ("wins", Whole),
                ("matches", Whole),
                ("weight", Number),
                ("kept", Flag),
                ("rank", Whole),
                ("seconds", Number),
            ],
            Self::Losses => &[
                ("step", Whole),
                ("uid", Whole),
                ("sample", Whole),
                ("loss", Number),
            ],
            Self::Refusals => &[
                ("uid", Whole),
                ("hotkey", Text),
                ("competition", Text),
                ("model", Text),
                ("committed", Whole),
                ("reason", Text),
                ("first_step", Whole),
                ("first_seen", Text),
                ("last_step", Whole),
                ("last_seen", Text),
            ],
            Self::Weights => &[
                ("block", Whole),
                ("at", Text),
                ("extrinsic", Text),
                ("uid", Whole),
                ("weight", Whole),
            ],
            Self::Faults => &[
                ("step", Whole),
                ("at", Text),
                ("competition", Text),
                ("uid", Whole),
                ("model", Text),
                ("fault", Text),
                ("reason", Text),
            ],
            Self::Health => &[
                ("at", Text),
                ("cause", Text),
                ("health", Text),
                ("text", Text),
            ],
            Self::Trust => &[("block", Whole), ("at", Text), ("validator_trust", Number)],
        }
    }

    fn write(self, index: &Index, writer: &mut Writer) -> Result<(), Broken> {
        match self {
            Self::Steps => each(writer, steps(index)?.iter()),
            Self::Verdicts => {
                for head in steps(index)? {
                    let rows = index.step(Some(head.step))?.map(|(_, rows)| rows);
                    each(writer, rows.into_iter().flatten())?;
                }
                Ok(())
            }
            Self::Losses => {
                for head in steps(index)? {
                    for (uid, losses) in index.losses(head.step)? {
                        let rows = losses.iter().zip(0_u64..).map(|(loss, sample)| {
                            serde_json::json!({
                                "step": head.step, "uid": uid, "sample": sample,
                                "loss": subnet::Real(*loss),
                            })
                        });
                        each(writer, rows)?;
                    }
                }
                Ok(())
            }
            Self::Refusals => each(writer, index.refusals(None, ALL)?.iter().rev()),
            Self::Weights => {
                let mut sets = index.weight_sets(ALL)?;
                sets.reverse();
                let rows = sets.iter().flat_map(|set| {
                    set.stored.iter().map(move |(uid, weight)| {
                        serde_json::json!({
                            "block": set.block, "at": set.at, "extrinsic": set.extrinsic,
                            "uid": uid, "weight": weight,
                        })
                    })
                });
                each(writer, rows)
            }
            Self::Faults => each(writer, index.faults(ALL)?.iter().rev()),
            Self::Health => each(writer, index.health(ALL)?.iter().rev()),
            Self::Trust => each(writer, index.trust(ALL)?.history.iter().rev()),
        }
    }
}

/// Returns all steps, oldest first.
fn steps(index: &Index) -> Result<Vec<index::StepHead>, IndexError> {
    let mut steps = index.steps(None, ALL)?;
    steps.reverse();
    Ok(steps)
}

fn each<T: Serialize>(
    writer: &mut Writer,
    rows: impl IntoIterator<Item = T>,
) -> Result<(), Broken> {
    for row in rows {
        let row = serde_json::to_value(row).map_err(io::Error::from)?;
        writer.row(&row)?;
    }
    Ok(())
}

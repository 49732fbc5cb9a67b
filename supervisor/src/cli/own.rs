//! What the supervisor starts of its own program: a command line by itself, since describing the whole one takes
//! longer than all else at such a start, which each poll and each gap between two children contains.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser};
use shared::{Exit, Failure, cli};

use super::confine::{self, ConfineArgs};
use crate::{
    child::launch::{self, LaunchArgs},
    job,
    update::confine as walls,
    worker,
};

const NAMES: [&str; 3] = [launch::SUBCOMMAND, walls::SUBCOMMAND, job::SUBCOMMAND];

#[derive(Debug, Parser)]
#[command(name = "supervisor")]
enum Own {
    /// Set limits, then become the child
    Launch(LaunchArgs),
    /// Raise walls, then become a program of a build
    Confine(ConfineArgs),
    /// Carry out one step of an update
    Worker { supervisor: u32 },
}

/// Does what such a command line says; returns nothing if this is none.
pub(super) fn main(line: &[OsString]) -> Option<Exit> {
    let name = line.get(1)?.to_str()?;
    NAMES
        .contains(&name)
        .then(|| cli::main(Own::command(), line, |_, _| None, run))
}

fn run(own: Own) -> Result<Exit, Failure> {
    match own {
        Own::Launch(args) => launch::launch(&args),
        Own::Confine(args) => confine::run(&args),
        Own::Worker { supervisor } => Ok(worker::run(supervisor)),
    }
}

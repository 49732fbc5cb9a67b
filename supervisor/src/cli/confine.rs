//! `confine`: raises walls, then becomes a program of a build.

use std::ffi::OsString;

use clap::Args;
use shared::{Exit, Failure};

use crate::update::confine;

#[derive(Debug, Clone, Args)]
pub(super) struct ConfineArgs {
    /// Program and arguments
    #[arg(last = true, required = true)]
    line: Vec<OsString>,
}

pub(super) fn run(args: &ConfineArgs) -> Result<Exit, Failure> {
    confine::run(&args.line)
}

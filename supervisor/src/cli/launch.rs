//! `launch`: sets limits, then becomes the child.

use std::ffi::OsString;

use clap::Args;
use shared::{Exit, Failure};

use crate::child::spec;

#[derive(Debug, Clone, Args)]
pub(super) struct LaunchArgs {
    /// Bytes
    #[arg(long)]
    memory_max: Option<u64>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    line: Vec<OsString>,
}

pub(super) fn run(args: &LaunchArgs) -> Result<Exit, Failure> {
    spec::launch(args.memory_max, &args.line)
}

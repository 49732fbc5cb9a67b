//! `launch`: sets limits, then becomes the child.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use shared::{Exit, Failure};

use crate::child::spec;

#[derive(Debug, Clone, Args)]
pub(super) struct LaunchArgs {
    /// Folder of a control group
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Bytes
    #[arg(long)]
    memory_max: Option<u64>,
    /// Program and arguments
    #[arg(last = true, required = true)]
    line: Vec<OsString>,
}

pub(super) fn run(args: LaunchArgs) -> Result<Exit, Failure> {
    spec::launch(args.cgroup, args.memory_max, &args.line)
}

//! `validator page`: the pages as files.

use clap::Args;
use shared::{Exit, Failure, cli::FullPath, term};

use super::flags::OwnFlags;
use crate::service;

/// Write the pages as files, for a bucket or a web server
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// The folder of the pages
    #[arg(value_name = "DIR")]
    folder: FullPath,
    #[command(flatten)]
    own: OwnFlags,
}

pub(super) fn run(args: &PageArgs) -> Result<Exit, Failure> {
    // Says what is wrong if there are no records.
    args.own.index()?;
    let pages = service::write_site(&args.own.folder()?, &args.folder, None)?;
    term::note(format_args!("{pages} pages"));
    term::line(args.folder.join("index.html").display());
    Ok(Exit::Ok)
}

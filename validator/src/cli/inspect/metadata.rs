//! `validator inspect metadata`: the metadata of the chain's runtime, into a file.

use shared::{Exit, Failure, cli::FullPath, file, term};

use super::super::{
    connect::connect,
    flags::{ChainFlags, LoggingFlags},
    runtime::block_on,
};
use crate::hints::chain_failure;

/// Of which network, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct MetadataArgs {
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: FullPath,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &MetadataArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let endpoints = args.chain.endpoints()?;
    let metadata = block_on(async {
        let client = connect(&endpoints).await?;
        client
            .metadata()
            .await
            .map_err(|error| chain_failure(&error))
    })?;
    file::write_atomic(&args.out, &metadata).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let (bytes, path) = (metadata.len(), args.out.display());
    term::note(format_args!("{bytes} bytes of metadata in {path}"));
    Ok(Exit::Ok)
}

//! `sign`: signs release archives and the list of them, or makes the key for that.

use std::path::PathBuf;

use clap::Args;
use shared::{Exit, Failure};

use crate::{
    error::Fault,
    update::{release_key, release_list},
};

#[derive(Debug, Clone, Args)]
pub(super) struct SignArgs {
    /// File with the signing key
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// Make the key first; its public half goes to FILE.pub
    #[arg(long)]
    pub(super) new_key: bool,
    /// List of releases to add this key's signature to
    #[arg(long, value_name = "FILE")]
    pub(super) list: Option<PathBuf>,
    /// Archives (.tar.gz) to sign in place; a .sha256 is written beside each
    pub(super) archives: Vec<PathBuf>,
}

pub(super) fn run(options: &SignArgs) -> Result<Exit, Failure> {
    let failed = |fault: Fault| Failure::new(Exit::Failed, fault);
    if options.new_key {
        let public = release_key::new_key(&options.key).map_err(failed)?;
        shared::term::line(format_args!(
            "wrote {} and {}",
            options.key.display(),
            public.display()
        ));
    }
    for archive in &options.archives {
        release_key::sign(archive, &options.key).map_err(failed)?;
        shared::term::line(format_args!("signed {}", archive.display()));
    }
    if let Some(list) = &options.list {
        let count = release_list::sign(list, &options.key).map_err(failed)?;
        shared::term::line(format_args!("signed {}: {count} in all", list.display()));
    }
    Ok(Exit::Ok)
}

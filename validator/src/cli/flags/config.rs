//! The file of flags.

use clap::Args;
use shared::cli::FullPath;

/// The file of flags; [`shared::cli::parse`] reads it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFlag {
    /// TOML or YAML file with these flags as keys. The command line and the environment beat it:
    /// --state-dir is VALIDATOR_STATE_DIR there, and so on
    #[arg(long, value_name = "FILE")]
    config: Option<FullPath>,
}

//! Where a validator's state lies.

use std::path::PathBuf;

use clap::Args;
use shared::cli::FullPath;

use super::WalletFlags;
use subnet::Netuid;

/// Where a validator's state lies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "State")]
pub(crate) struct StateFlags {
    /// Folder of logs and state, with a folder for each wallet, hotkey and subnet
    #[arg(
        long = "logging.logging_dir",
        value_name = "DIR",
        default_value = "~/.bittensor/miners"
    )]
    logging_dir: FullPath,
    /// Folder of this validator's state, in place of the one under the logging folder
    #[arg(long = "state-dir", value_name = "DIR", env = "VALIDATOR_STATE_DIR")]
    state_dir: Option<FullPath>,
}

impl StateFlags {
    /// Returns the folder of the state of one validator.
    pub(crate) fn folder(&self, wallet: &WalletFlags, netuid: Netuid) -> PathBuf {
        self.state_dir.as_deref().map_or_else(
            || {
                self.logging_dir
                    .join(&wallet.wallet_name)
                    .join(&wallet.wallet_hotkey)
                    .join(format!("netuid{netuid}"))
                    .join("vali-state")
            },
            ToOwned::to_owned,
        )
    }
}

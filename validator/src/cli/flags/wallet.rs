//! Which wallet.

use std::{env, io::IsTerminal as _};

use clap::Args;
use shared::cli::FullPath;

use chain::{Passwords, WalletPath};

/// Which wallet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Wallet")]
#[expect(
    clippy::struct_field_names,
    reason = "clap knows arguments by these names"
)]
pub(crate) struct WalletFlags {
    /// Wallet (coldkey) name
    #[arg(
        long = "wallet.name",
        value_name = "NAME",
        default_value = "default",
        env = "BT_WALLET_NAME"
    )]
    pub(crate) wallet_name: String,
    /// Hotkey name
    #[arg(
        long = "wallet.hotkey",
        value_name = "NAME",
        default_value = "default",
        env = "BT_WALLET_HOTKEY"
    )]
    pub(crate) wallet_hotkey: String,
    /// Folder of the wallets
    #[arg(
        long = "wallet.path",
        value_name = "DIR",
        default_value = "~/.bittensor/wallets",
        env = "BT_WALLET_PATH"
    )]
    pub(crate) wallet_path: FullPath,
}

impl WalletFlags {
    /// Returns where the wallet lies.
    pub(crate) fn path(&self) -> WalletPath {
        WalletPath {
            folder: self.wallet_path.to_path_buf(),
            name: self.wallet_name.clone(),
            hotkey: self.wallet_hotkey.clone(),
        }
    }

    /// Returns where passwords of encrypted hotkeys come from: environment, file, prompt.
    pub(crate) fn passwords() -> Passwords {
        let environment = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Passwords::new(environment, std::io::stdin().is_terminal())
    }
}

//! Where everything of a running subnet is.

use std::path::PathBuf;

use serde::Serialize;
use shared::term::{self, Table};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    pub chain: String,
    pub netuid: u16,
    /// Base URL of the hub, for `HF_ENDPOINT`.
    pub hub: String,
    /// JSON lines of chat samples.
    pub samples: String,
    /// The same samples as a file.
    pub samples_file: PathBuf,
    /// Base URL of the W&B stand-in, for `WANDB_BASE_URL`.
    pub wandb: String,
    pub git: Option<String>,
    /// The folder of wallets, for `--wallet.path`.
    pub wallets: PathBuf,
    /// The validator's wallet, for `--wallet.name`; its hotkey is `default`.
    pub wallet: String,
    /// The subnet file, for `--subnet`.
    pub subnet: PathBuf,
}

impl Endpoints {
    /// Returns them as a table for people.
    pub fn table(&self) -> Table {
        let mut table = term::table(["what", "where"]);
        let subnet = format!("{} (netuid {})", self.chain, self.netuid);
        table.add_row(["chain", &subnet]);
        table.add_row(["hub", &self.hub]);
        table.add_row(["samples", &self.samples]);
        table.add_row(["W&B stand-in", &self.wandb]);
        if let Some(git) = &self.git {
            table.add_row(["git remote", git]);
        }
        table.add_row(["wallets", &self.wallets.display().to_string()]);
        table.add_row(["subnet file", &self.subnet.display().to_string()]);
        table
    }
}

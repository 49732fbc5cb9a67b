//! What commands that talk to the chain share: a client and a wallet.

use std::time::Duration;

use shared::Failure;

use super::flags::WalletFlags;
use crate::hints::{chain_failure, wallet_failure};
use chain::{Client, Deadlines, Endpoints, Wallet};

/// A person waits: one operation gives up sooner than the validator's would.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects to one of the nodes that the flags name.
pub(super) async fn connect(endpoints: &Endpoints) -> Result<Client, Failure> {
    let deadlines = Deadlines {
        operation: PATIENCE,
        ..Deadlines::default()
    };
    Client::connect(endpoints, deadlines)
        .await
        .map_err(|error| chain_failure(&error))
}

/// Opens the wallet that the flags name; asks for a password where it must and can.
pub(super) fn open(flags: &WalletFlags) -> Result<Wallet, Failure> {
    Wallet::open(&flags.path(), &WalletFlags::passwords()).map_err(|error| wallet_failure(&error))
}

//! What commands that talk to the chain share: a client, a wallet, and words for what fails.

use std::time::Duration;

use shared::{Exit, Failure};

use super::flags::WalletFlags;
use chain::{ChainError, Client, Deadlines, Endpoints, Wallet, WalletError};
use subnet::FaultKind;

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

/// Tells a failure of the chain, with a hint where there is something to do.
pub(super) fn chain_failure(error: &ChainError) -> Failure {
    let failure = Failure::of(error.kind().exit(), error);
    match (error, error.kind()) {
        (ChainError::NoSubnet(_), _) => failure.hint("check --netuid"),
        (ChainError::Rpc(_), FaultKind::Config) => {
            failure.hint("check --subtensor.network or --subtensor.chain_endpoint")
        }
        (ChainError::Rpc(_), _) => {
            failure.hint("give other nodes with --subtensor.chain_endpoint; it may be repeated")
        }
        (ChainError::Missing { .. } | ChainError::Decode { .. } | ChainError::Encode { .. }, _) => {
            failure.hint("the chain may have changed: look for a newer release of the validator")
        }
        _ => failure,
    }
}

/// Tells why a wallet did not open.
pub(super) fn wallet_failure(error: &WalletError) -> Failure {
    let failure = Failure::of(Exit::Config, error);
    match error {
        WalletError::Missing(_) => {
            failure.hint("check --wallet.name, --wallet.hotkey and --wallet.path")
        }
        WalletError::NoPassword(_) | WalletError::WrongPassword(_) => failure.hint(
            "give the password in BT_WALLET_PASSWORD_FILE, BT_WALLET_PASSWORD or at the prompt",
        ),
        _ => failure,
    }
}

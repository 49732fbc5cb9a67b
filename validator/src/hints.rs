//! What to do about failures of chain, wallet and locks: said in one place for all commands.

use std::io::ErrorKind;

use shared::{Exit, Failure, file::LockError};

use chain::{ChainError, WalletError};
use subnet::FaultKind;

/// Tells a failure of the chain, with a hint where there is something to do.
pub(crate) fn chain_failure(error: &ChainError) -> Failure {
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
pub(crate) fn wallet_failure(error: &WalletError) -> Failure {
    let failure = Failure::of(Exit::Config, error);
    match error {
        WalletError::Missing(_) => failure.hint(
            "check --wallet.name, --wallet.hotkey and --wallet.path; without a wallet, try `localnet`",
        ),
        WalletError::NoPassword(_) | WalletError::WrongPassword(_) => failure.hint(
            "give the password in BT_WALLET_PASSWORD_FILE, BT_WALLET_PASSWORD or at the prompt",
        ),
        _ => failure,
    }
}

/// Tells why a lock of a hotkey or a state was not to be had: exit code 77 if somebody
/// has it or the file is not ours.
pub(crate) fn lock_failure(error: &LockError) -> Failure {
    match error {
        LockError::Held { .. } => Failure::of(Exit::Denied, error)
            .hint("another validator runs with this hotkey or state; stop it first"),
        LockError::File(denied) if denied.source.kind() == ErrorKind::PermissionDenied => {
            Failure::of(Exit::Denied, error)
                .hint("run as the user who owns the folder, or name another with --state-dir")
        }
        LockError::File(_) => Failure::of(Exit::Machine, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_another_user_is_a_denial() {
        let error = |kind: ErrorKind| {
            let file = shared::file::FileError::on("open", "/state/lock".as_ref());
            lock_failure(&LockError::File(file(kind.into())))
        };
        assert_eq!(error(ErrorKind::PermissionDenied).exit(), Exit::Denied);
        assert_eq!(error(ErrorKind::StorageFull).exit(), Exit::Machine);
    }
}

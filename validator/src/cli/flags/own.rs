//! Which validator, for commands that look at what it left.

use std::path::PathBuf;

use clap::Args;
use index::{Index, IndexError};
use shared::{Exit, Failure, term};

use super::{ChainFlags, ConfigFlag, StateFlags, WalletFlags};

/// Which validator: the flags it runs with.
#[derive(Debug, Clone, Args)]
pub(crate) struct OwnFlags {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    state: StateFlags,
}

impl OwnFlags {
    /// Returns the folder of its state.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        let netuid = self.chain.parameters()?.netuid;
        Ok(self.state.folder(&self.wallet, netuid))
    }

    /// Opens its index, up to date.
    pub(crate) fn index(&self) -> Result<Index, Failure> {
        let index = Index::open(&self.folder()?).map_err(|error| index_failure(&error))?;
        if let Some(why) = index.rebuilt() {
            term::note(format_args!("the index was made anew: {why}"));
        }
        Ok(index)
    }
}

/// Says what stands between us and the index, and what to do.
pub(crate) fn index_failure(error: &IndexError) -> Failure {
    let exit = match error {
        IndexError::NoRecords(_) => Exit::Failed,
        IndexError::Building => Exit::TryLater,
        IndexError::File(_) | IndexError::Database { .. } => Exit::Machine,
    };
    let failure = Failure::of(exit, error);
    match error {
        IndexError::NoRecords(_) => failure
            .because("no validator has run with this wallet, subnet and state folder")
            .hint(OWN_FLAGS),
        IndexError::Database { .. } => failure.hint("the file may be deleted; it is made again"),
        IndexError::Building | IndexError::File(_) => failure,
    }
}

/// What to do when nothing is found.
pub(crate) const OWN_FLAGS: &str =
    "give the flags of the validator: --wallet.name, --wallet.hotkey, --netuid, --state-dir";

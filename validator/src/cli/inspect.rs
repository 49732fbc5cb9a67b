//! `validator inspect`: look at one part of what the validator knows.

use clap::Subcommand;
use shared::{Exit, Failure};

use super::{
    inspect_chain::{self, ChainArgs, What},
    inspect_store,
};

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// The neurons: stake, permit, consensus, last update
    Metagraph(Box<ChainArgs>),
    /// What the chain asks of weights, and when its epochs are
    Hyperparameters(Box<ChainArgs>),
    /// What miners committed to
    Commitments(Box<ChainArgs>),
    /// The weights validators have set
    Weights(Box<ChainArgs>),
    /// Our hotkey, and its place on the subnet
    Wallet(Box<ChainArgs>),
    /// Models on disk: who refers to them, what could go
    Store(inspect_store::InspectStoreArgs),
}

pub(super) fn run(kind: &Inspect) -> Result<Exit, Failure> {
    match kind {
        Inspect::Metagraph(args) => inspect_chain::run(What::Metagraph, args),
        Inspect::Hyperparameters(args) => inspect_chain::run(What::Hyperparameters, args),
        Inspect::Commitments(args) => inspect_chain::run(What::Commitments, args),
        Inspect::Weights(args) => inspect_chain::run(What::Weights, args),
        Inspect::Wallet(args) => inspect_chain::run(What::Wallet, args),
        Inspect::Store(args) => inspect_store::run(args),
    }
}

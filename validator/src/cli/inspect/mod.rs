//! `validator inspect`: look at one part of what the validator knows.

mod commitments;
mod hyperparameters;
mod metadata;
mod metagraph;
mod on_chain;
mod store;
mod wallet;
mod weights;

use clap::Subcommand;
use shared::{Exit, Failure};

use on_chain::OnChainArgs;

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// The neurons: stake, permit, consensus, last update
    Metagraph(Box<OnChainArgs>),
    /// What the chain asks of weights, and when its epochs are
    Hyperparameters(Box<OnChainArgs>),
    /// What miners committed to
    Commitments(Box<OnChainArgs>),
    /// The weights validators have set
    Weights(Box<weights::WeightsArgs>),
    /// The metadata of the chain's runtime, for `validator check --metadata`
    Metadata(Box<metadata::MetadataArgs>),
    /// Our hotkey, and its place on the subnet
    Wallet(Box<wallet::WalletArgs>),
    /// Models on disk: who refers to them, what could go
    Store(store::StoreArgs),
}

pub(super) fn run(kind: &Inspect) -> Result<Exit, Failure> {
    match kind {
        Inspect::Metagraph(args) => {
            args.show("neurons", |snapshot| &snapshot.neurons, metagraph::table)
        }
        Inspect::Hyperparameters(args) => args.show(
            "hyperparameters",
            |snapshot| &snapshot.hyperparameters,
            hyperparameters::table,
        ),
        Inspect::Commitments(args) => args.show(
            "commitments",
            |snapshot| &snapshot.commitments,
            commitments::table,
        ),
        Inspect::Weights(args) => weights::run(args),
        Inspect::Metadata(args) => metadata::run(args),
        Inspect::Wallet(args) => wallet::run(args),
        Inspect::Store(args) => store::run(args),
    }
}

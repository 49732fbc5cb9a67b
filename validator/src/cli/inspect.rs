//! `validator inspect`: look at one part of what the validator knows.

use clap::Subcommand;
use shared::{Exit, Failure};

use super::inspect_store;

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// Models on disk: who refers to them, what could go
    Store(inspect_store::InspectStoreArgs),
}

pub(super) fn run(kind: &Inspect) -> Result<Exit, Failure> {
    match kind {
        Inspect::Store(args) => inspect_store::run(args),
    }
}

//! `update`: look for an update now and apply it.

use clap::Args;
use shared::{Exit, Failure};

use super::query::{Query, order};
use crate::control::Request;

#[derive(Debug, Clone, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    pub(super) query: Query,
    /// Neither wait for a safe point nor respect the quarantine; build local changes too
    #[arg(long)]
    pub(super) force: bool,
}

pub(super) fn run(args: &UpdateArgs) -> Result<Exit, Failure> {
    let force = args.force;
    order(&args.query, &Request::Update { force })
}

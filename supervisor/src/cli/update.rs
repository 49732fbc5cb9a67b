//! `update`: look for an update now and apply it.

use clap::Args;
use shared::{Exit, Failure};

use super::query::{Query, order};
use crate::control::Request;

#[derive(Debug, Clone, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    query: Query,
    /// Neither wait for a safe point nor respect the quarantine; build local changes too
    #[arg(long)]
    force: bool,
    /// With --require-signed: build the local commits and edits that the checkout has now, too
    #[arg(long)]
    local: bool,
}

pub(super) fn run(args: &UpdateArgs) -> Result<Exit, Failure> {
    let (force, local) = (args.force, args.local);
    order(&args.query, &Request::Update { force, local })
}

//! What the parts of a chain snapshot share: where to look, and how they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::{
    Exit, Failure,
    term::{self, Table},
};

use super::super::{
    connect::connect,
    flags::{ChainFlags, LoggingFlags},
    runtime::block_on,
};
use crate::hints::chain_failure;
use chain::ChainSnapshot;

/// rao in one TAO or alpha.
pub(super) const RAO: f64 = 1e9;

/// Where to look, and how to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct OnChainArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

/// One part of a snapshot, with the block it was read at.
#[derive(Serialize)]
struct SnapshotPart<'a, T> {
    netuid: subnet::Netuid,
    block: u64,
    block_hash: &'a str,
    spec_version: u32,
    next_epoch: Option<u64>,
    #[serde(flatten)]
    content: BTreeMap<&'static str, T>,
}

impl OnChainArgs {
    /// Takes a snapshot and shows one part of it, as JSON or as a table.
    pub(super) fn show<T: Serialize + ?Sized>(
        &self,
        name: &'static str,
        part: impl Fn(&ChainSnapshot) -> &T,
        table: impl Fn(&ChainSnapshot) -> Table,
    ) -> Result<Exit, Failure> {
        self.log.init_quiet();
        let snapshot = block_on(snapshot(&self.chain))?;
        if self.json {
            term::json(&SnapshotPart {
                netuid: snapshot.netuid,
                block: snapshot.block,
                block_hash: &snapshot.block_hash,
                spec_version: snapshot.spec_version,
                next_epoch: snapshot.next_epoch,
                content: BTreeMap::from([(name, part(&snapshot))]),
            });
            return Ok(Exit::Ok);
        }
        term::line(table(&snapshot));
        term::note(format_args!(
            "subnet {} at block {}, runtime {}",
            snapshot.netuid, snapshot.block, snapshot.spec_version
        ));
        Ok(Exit::Ok)
    }
}

/// Takes a snapshot of the subnet that the flags name.
pub(super) async fn snapshot(flags: &ChainFlags) -> Result<ChainSnapshot, Failure> {
    let parameters = flags.parameters()?;
    let client = connect(&flags.endpoints()?).await?;
    let snapshot = client.snapshot_by(parameters.netuid, &parameters.commitment);
    let snapshot = snapshot.await;
    snapshot.map_err(|error| chain_failure(&error))
}

/// Shows a share of 65535.
pub(super) fn share(of_u16: u16) -> String {
    format!("{:.5}", f64::from(of_u16) / f64::from(u16::MAX))
}

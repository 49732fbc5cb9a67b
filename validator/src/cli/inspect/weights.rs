//! `validator inspect weights`: the weights validators have set.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::{Exit, Failure, term};

use super::{
    super::{
        connect::connect,
        flags::{ChainFlags, LoggingFlags},
        runtime::block_on,
    },
    on_chain::share,
};
use crate::hints::chain_failure;
use subnet::{BlockNumber, Netuid, Uid};

/// Whose weights.
#[derive(Debug, clap::Args)]
pub(crate) struct WeightsArgs {
    /// Mechanism whose weights are shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    mechanism: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

/// The weights of all validators, at a block.
#[derive(Serialize)]
struct AllWeights {
    netuid: Netuid,
    mechanism: u8,
    block: BlockNumber,
    rows: BTreeMap<Uid, Vec<(u16, u16)>>,
}

pub(super) fn run(args: &WeightsArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let netuid = args.chain.parameters()?.netuid;
    let endpoints = args.chain.endpoints()?;
    let (block, rows) = block_on(async {
        let client = connect(&endpoints).await?;
        let read = client.weights(netuid, args.mechanism).await;
        read.map_err(|error| chain_failure(&error))
    })?;
    if rows.is_empty() {
        let text = format!(
            "no validator of subnet {netuid} has weights on mechanism {}",
            args.mechanism
        );
        return Err(Failure::new(Exit::Failed, text)
            .because(format_args!("at block {block}; a subnet that is not there has none either"))
            .hint("--netuid and --mechanism name another; `validator inspect hyperparameters` says whether it is there"));
    }
    if args.json {
        term::json(&AllWeights {
            netuid,
            mechanism: args.mechanism,
            block,
            rows,
        });
        return Ok(Exit::Ok);
    }
    let mut table = term::table(["validator", "weights (uid: share of the largest)"]);
    for (uid, row) in &rows {
        let row: Vec<_> = row
            .iter()
            .map(|(uid, weight)| format!("{uid}: {}", share(*weight)))
            .collect();
        table.add_row([uid.to_string(), row.join("  ")]);
    }
    term::line(table);
    term::note(format_args!(
        "subnet {netuid}, mechanism {}, at block {block}",
        args.mechanism
    ));
    Ok(Exit::Ok)
}

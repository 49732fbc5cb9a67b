//! `validator inspect wallet`: our hotkey, and its place on the subnet.

use serde::Serialize;
use shared::{Exit, Failure, term};

use super::{
    super::{
        connect::open,
        flags::{ChainFlags, LoggingFlags, WalletFlags},
        runtime::block_on,
    },
    on_chain::{RAO, snapshot},
};
use crate::hints::wallet_failure;
use chain::{Neuron, Wallet, WalletPath};
use subnet::Hotkey;

/// Which wallet, on which subnet.
#[derive(Debug, clap::Args)]
pub(crate) struct WalletArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

/// What `inspect wallet` tells; never a secret.
#[derive(Serialize)]
struct WalletReport {
    path: String,
    hotkey: Hotkey,
    coldkey: Option<Hotkey>,
    kind: Option<&'static str>,
    netuid: subnet::Netuid,
    block: Option<u64>,
    neuron: Option<Neuron>,
    problem: Option<String>,
}

pub(super) fn run(args: &WalletArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    // What is wrong with them is not a state of the chain.
    args.chain.endpoints()?;
    let path: WalletPath = args.wallet.path();
    let public = path
        .public_hotkey()
        .map_err(|error| wallet_failure(&error))?;
    let opened: Option<Wallet> = match public {
        Some(_) => None,
        None => Some(open(&args.wallet)?),
    };
    let hotkey = public.or(opened.as_ref().map(Wallet::hotkey));
    let Some(hotkey) = hotkey else {
        return Err(Failure::new(Exit::Config, "the wallet has no hotkey"));
    };
    let netuid = args.chain.parameters()?.netuid;
    let seen = block_on(snapshot(&args.chain));
    let (block, neuron, problem) = match &seen {
        Ok(snapshot) => (
            Some(snapshot.block),
            snapshot.neuron(&hotkey).cloned(),
            None,
        ),
        Err(failure) => (None, None, Some(failure.to_string())),
    };
    let report = WalletReport {
        path: path.hotkey_file().display().to_string(),
        hotkey,
        coldkey: path.public_coldkey(),
        kind: opened.as_ref().map(Wallet::kind),
        netuid,
        block,
        neuron,
        problem,
    };
    if args.json {
        term::json(&report);
        return Ok(Exit::Ok);
    }
    let mut table = term::table(["wallet", ""]);
    table.add_row(["file", &report.path]);
    table.add_row(["hotkey", &hotkey.to_string()]);
    if let Some(coldkey) = &report.coldkey {
        table.add_row(["coldkey", &coldkey.to_string()]);
    }
    let standing = match (&report.neuron, &report.problem) {
        (_, Some(problem)) => format!("unknown: {problem}"),
        (None, None) => "not registered".to_owned(),
        (Some(neuron), None) => format!(
            "uid {}, stake {:.3}, {}, last update in block {}",
            neuron.uid,
            neuron.stake as f64 / RAO,
            if neuron.validator_permit {
                "validator permit"
            } else {
                "no validator permit"
            },
            neuron.last_update
        ),
    };
    table.add_row([format!("on subnet {netuid}"), standing]);
    term::line(table);
    Ok(Exit::Ok)
}

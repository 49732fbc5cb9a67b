//! `validator inspect metagraph|hyperparameters|commitments|weights|wallet`: what the chain says, and what the wallet holds.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::{Exit, Failure, term};

use super::{
    block_on,
    chain::{connect, failure, open, wallet_failure},
    flags::{ChainFlags, WalletFlags},
};
use chain::{ChainSnapshot, Neuron, Wallet, WalletPath};
use subnet::{Hotkey, Uid};

/// rao in one TAO or alpha.
const RAO: f64 = 1e9;

/// Where to look, and how to show it.
#[derive(Debug, clap::Args)]
pub struct ChainArgs {
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    wallet: WalletFlags,
    /// Mechanism whose weights are shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    mechanism: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Metagraph,
    Hyperparameters,
    Commitments,
    Weights,
    Wallet,
}

pub(super) fn run(what: What, args: &ChainArgs) -> Result<Exit, Failure> {
    block_on(async {
        match what {
            What::Wallet => wallet(args).await?,
            What::Weights => weights(args).await?,
            What::Metagraph | What::Hyperparameters | What::Commitments => {
                subnet(args, what).await?;
            }
        }
        Ok(Exit::Ok)
    })
}

async fn snapshot(args: &ChainArgs) -> Result<ChainSnapshot, Failure> {
    let netuid = args.chain.parameters()?.netuid;
    let client = connect(&args.chain).await?;
    client
        .snapshot(netuid)
        .await
        .map_err(|error| failure(&error))
}

async fn subnet(args: &ChainArgs, what: What) -> Result<(), Failure> {
    let snapshot = snapshot(args).await?;
    if args.json {
        print_json(&snapshot, what);
        return Ok(());
    }
    match what {
        What::Metagraph => metagraph(&snapshot),
        What::Commitments => commitments(&snapshot),
        _ => hyperparameters(&snapshot),
    }
    term::note(format_args!(
        "subnet {} at block {}, runtime {}",
        snapshot.netuid, snapshot.block, snapshot.spec_version
    ));
    Ok(())
}

/// One part of a snapshot, with the block it was read at.
#[derive(Serialize)]
struct Part<'a, T> {
    netuid: subnet::Netuid,
    block: u64,
    block_hash: &'a str,
    spec_version: u32,
    next_epoch: Option<u64>,
    #[serde(flatten)]
    content: BTreeMap<&'static str, T>,
}

fn print_json(snapshot: &ChainSnapshot, what: What) {
    fn part<T: Serialize>(snapshot: &ChainSnapshot, name: &'static str, content: T) {
        term::json(&Part {
            netuid: snapshot.netuid,
            block: snapshot.block,
            block_hash: &snapshot.block_hash,
            spec_version: snapshot.spec_version,
            next_epoch: snapshot.next_epoch,
            content: BTreeMap::from([(name, content)]),
        });
    }
    match what {
        What::Metagraph => part(snapshot, "neurons", &snapshot.neurons),
        What::Commitments => part(snapshot, "commitments", &snapshot.commitments),
        _ => part(snapshot, "hyperparameters", &snapshot.hyperparameters),
    }
}

fn metagraph(snapshot: &ChainSnapshot) {
    let headings = [
        "uid",
        "hotkey",
        "stake",
        "permit",
        "active",
        "consensus",
        "incentive",
        "dividends",
        "updated",
    ];
    let mut table = term::table(headings);
    for neuron in &snapshot.neurons {
        table.add_row([
            neuron.uid.to_string(),
            neuron.hotkey.to_string(),
            format!("{:.3}", neuron.stake as f64 / RAO),
            yes_no(neuron.validator_permit),
            yes_no(neuron.active),
            share(neuron.consensus),
            share(neuron.incentive),
            share(neuron.dividends),
            neuron.last_update.to_string(),
        ]);
    }
    term::line(table);
}

fn commitments(snapshot: &ChainSnapshot) {
    let mut table = term::table([
        "uid",
        "block",
        "competition",
        "repository",
        "revision",
        "problem",
    ]);
    for commitment in &snapshot.commitments {
        let (competition, repository, revision, problem) = match &commitment.model {
            Ok(model) => (
                model.competition_or_old().to_string(),
                model.repository(),
                model.revision.clone().unwrap_or_default(),
                String::new(),
            ),
            Err(problem) => (String::new(), String::new(), String::new(), problem.clone()),
        };
        let (uid, block) = (commitment.uid.to_string(), commitment.block.to_string());
        // A miner's text must not steer the terminal.
        table.add_row(
            [uid, block, competition, repository, revision, problem]
                .map(|text| term::printable(&text, usize::MAX)),
        );
    }
    term::line(table);
}

fn hyperparameters(snapshot: &ChainSnapshot) {
    let mut table = term::table(["hyperparameter", "value"]);
    let value = serde_json::to_value(&snapshot.hyperparameters).unwrap_or_default();
    for (name, value) in value.as_object().into_iter().flatten() {
        table.add_row([name.replace('_', " "), value.to_string()]);
    }
    let next = snapshot
        .next_epoch
        .map_or_else(|| "none in sight".to_owned(), |block| block.to_string());
    table.add_row(["next epoch".to_owned(), next]);
    term::line(table);
}

async fn weights(args: &ChainArgs) -> Result<(), Failure> {
    let netuid = args.chain.parameters()?.netuid;
    let client = connect(&args.chain).await?;
    let (block, rows) = client
        .weights(netuid, args.mechanism)
        .await
        .map_err(|error| failure(&error))?;
    if args.json {
        #[derive(Serialize)]
        struct Weights {
            netuid: subnet::Netuid,
            mechanism: u8,
            block: u64,
            rows: BTreeMap<Uid, Vec<(u16, u16)>>,
        }
        term::json(&Weights {
            netuid,
            mechanism: args.mechanism,
            block,
            rows,
        });
        return Ok(());
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
    Ok(())
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

async fn wallet(args: &ChainArgs) -> Result<(), Failure> {
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
    let seen = snapshot(args).await;
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
        return Ok(());
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
    Ok(())
}

fn share(of_u16: u16) -> String {
    format!("{:.5}", f64::from(of_u16) / f64::from(u16::MAX))
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "" }.to_owned()
}

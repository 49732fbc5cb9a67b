//! `validator set-weights`: the operator's emergency tool.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;
use shared::{Exit, Failure, file, term};

use super::{
    connect::{connect, open},
    flags::{ChainFlags, ConfigFlag, LoggingFlags, WalletFlags},
    runtime::block_on,
};
use crate::hints::chain_failure;
use chain::weights::{self, Method, Preflight, SetWeightsError, WeightsReceipt, WeightsRequest};
use subnet::{Fault, Uid};

/// Largest weights file read.
const MAX_BYTES: u64 = 1 << 20;

/// Set weights by hand and prove that they arrived.
#[derive(Debug, clap::Args)]
pub(crate) struct SetWeightsArgs {
    /// Weights as JSON, or a file of it: {"uid": weight, ...}; any scale
    #[arg(long, value_name = "FILE|JSON")]
    weights: String,
    /// Mechanism of the subnet [default: the subnet file's]
    #[arg(long, value_name = "N")]
    mechanism: Option<u8>,
    /// Version key sent with the weights [default: the subnet file's]
    #[arg(long = "version-key", value_name = "N")]
    version_key: Option<u64>,
    /// How long to go on trying, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    window: u64,
    /// Check everything, send nothing
    #[arg(long = "dry-run")]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

/// What a dry run found out.
#[derive(Serialize)]
struct Rehearsal<'a> {
    dry_run: bool,
    weights: &'a weights::Emitted,
    #[serde(flatten)]
    preflight: &'a Preflight,
}

pub(super) fn run(args: &SetWeightsArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let parameters = args.chain.parameters()?;
    let endpoints = args.chain.endpoints()?;
    let weighed = read(&args.weights)?;
    let emitted = weights::emit(weighed.clone()).map_err(|error| {
        Failure::of(Exit::BadInput, &error).hint("weights are finite numbers, 0 or above")
    })?;
    let mut request = WeightsRequest {
        netuid: parameters.netuid,
        mechanism: args.mechanism.unwrap_or(parameters.mechanism),
        weights: emitted,
        version_key: args.version_key.unwrap_or(parameters.weights_version),
        window: Duration::from_secs(args.window),
    };
    let wallet = open(&args.wallet)?;
    block_on(async {
        let client = connect(&endpoints).await?;
        let head = client.head().await.map_err(|error| chain_failure(&error))?;
        let look = async |request: &WeightsRequest| {
            let preflight = weights::preflight(&head, &wallet.hotkey(), request).await;
            preflight.map_err(|error| chain_failure(&error))
        };
        let preflight = look(&request).await?;
        let limit = preflight.hyperparameters.max_weight_limit;
        if let Ok(cut) = weights::emit_within(weighed, limit)
            && cut != request.weights
        {
            term::note("the largest weights are cut to what the chain allows");
            request.weights = cut;
        }
        if args.dry_run {
            let preflight = look(&request).await?;
            return Ok(report_dry_run(args, &request, &preflight));
        }
        let receipt = weights::set(&client, &wallet, &request)
            .await
            .map_err(refused)?;
        report(args, &receipt);
        Ok(Exit::Ok)
    })
}

/// Reads `{"uid": weight}` from the argument itself or from a file.
fn read(argument: &str) -> Result<BTreeMap<Uid, f64>, Failure> {
    let (name, text) = if argument.trim_start().starts_with('{') {
        ("--weights".to_owned(), argument.to_owned())
    } else {
        let bytes = file::read_limited(Path::new(argument), MAX_BYTES)
            .map_err(|error| Failure::of(Exit::BadInput, &error))?
            .ok_or_else(|| {
                Failure::new(Exit::BadInput, format_args!("there is no file {argument}"))
            })?;
        (
            argument.to_owned(),
            String::from_utf8_lossy(&bytes).into_owned(),
        )
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::BadInput, format_args!("{name} holds no weights"))
            .caused_by(&error)
            .hint(r#"write {"uid": weight, ...}, such as {"3": 0.7, "12": 0.3}"#)
    })
}

fn report_dry_run(args: &SetWeightsArgs, request: &WeightsRequest, preflight: &Preflight) -> Exit {
    if args.json {
        term::json(&Rehearsal {
            dry_run: true,
            weights: &request.weights,
            preflight,
        });
    } else {
        show(&request.weights);
        for refusal in &preflight.refusals {
            term::line(format_args!("the chain would refuse: {refusal}"));
        }
        if preflight.refusals.is_empty() {
            let way = if preflight.hyperparameters.commit_reveal {
                "commit them now and reveal them later"
            } else {
                "set them in the clear"
            };
            term::line(format_args!(
                "nothing was sent; the chain would take them: it would {way}"
            ));
        }
    }
    if preflight.refusals.is_empty() {
        Exit::Ok
    } else {
        Exit::Refused
    }
}

fn report(args: &SetWeightsArgs, receipt: &WeightsReceipt) {
    if args.json {
        term::json(receipt);
        return;
    }
    show(&receipt.weights);
    let (block, hash) = (receipt.block, &receipt.extrinsic_hash);
    match (receipt.method, receipt.reveal) {
        (Method::TimelockedCommit, Some(plan)) => term::line(format_args!(
            "committed in block {block} ({hash}); they become visible from block {} on",
            plan.block
        )),
        _ => term::line(format_args!("set in block {block} ({hash}) and read back")),
    }
    if !receipt.finalized {
        term::note(format_args!("block {block} is not final yet"));
    }
}

fn show(weights: &weights::Emitted) {
    let mut table = term::table(["uid", "weight (of 65535)"]);
    for (uid, weight) in weights.pairs() {
        table.add_row([uid.to_string(), weight.to_string()]);
    }
    term::line(table);
}

fn refused(error: SetWeightsError) -> Failure {
    if let SetWeightsError::Chain(error) = &error {
        return chain_failure(error);
    }
    if let SetWeightsError::Refused(refusals) = &error {
        let failure = Failure::new(Exit::Refused, "the chain would refuse these weights");
        return refusals.iter().fold(failure, Failure::because);
    }
    Failure::from(Fault::from(error))
}

//! Bare `localnet`: starts the subnet, says where everything is, stays up.

use std::time::Duration;

use clap::Args;
use shared::{Exit, Failure, shutdown::Shutdown, term};

use super::{PlaceArgs, Progress};
use crate::{Localnet, Options};

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Port of the chain; hub, CDN, samples, W&B stand-in and git remote take the next ones
    #[arg(long, value_name = "PORT", default_value_t = 9944)]
    base_port: u16,
    /// The subnet's number
    #[arg(long, value_name = "N", default_value_t = 6)]
    netuid: u16,
    /// Seconds of wall clock between two blocks; on the chain it is always 12 s
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    block_time: f64,
    /// Conversations in the sample feed
    #[arg(long, value_name = "N", default_value_t = 200)]
    samples: usize,
    /// Start without miners: nothing is trained
    #[arg(long)]
    no_miners: bool,
    /// Print the endpoints as JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number between 0.01 and 3600".to_owned()),
    }
}

pub(super) async fn run(args: UpArgs, shutdown: Shutdown) -> Result<Exit, Failure> {
    if args.base_port.checked_add(5).is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "--base-port leaves no room for five more ports",
        ));
    }
    let options = Options {
        state_dir: Some(args.place.state_dir),
        base_port: Some(args.base_port),
        seed: args.place.seed,
        netuid: args.netuid,
        miners: if args.no_miners {
            Vec::new()
        } else {
            Options::all_miners()
        },
        samples: args.samples,
        block_time: Some(Duration::from_secs_f64(args.block_time)),
        source: Some(args.place.source),
        ..Options::default()
    };
    let progress = Progress::new();
    let subnet = tokio::select! {
        started = Localnet::start_with(options, move |what| progress.show(what)) => started?,
        () = shutdown.requested() => return Ok(Exit::Interrupted),
    };
    if args.json {
        term::json(&subnet.endpoints());
    } else {
        show(&subnet);
    }
    shutdown.requested().await;
    Ok(Exit::Ok)
}

fn show(subnet: &Localnet) {
    let endpoints = subnet.endpoints();
    term::line(endpoints.table());
    if !subnet.miners.is_empty() {
        term::line(subnet.miner_table());
    }
    let folder = subnet.folder().display();
    term::line(format_args!(
        "\nEnvironment for a shell:  source {folder}/localnet.env"
    ));
    term::line("Samples of each kind, with that environment:");
    for source in subnet.sample_sources() {
        term::line(format_args!("  validator samples --samples '{source}'"));
    }
    term::line("A validator here, without a GPU:");
    let arguments = subnet.validator_arguments().join(" ");
    term::line(format_args!(
        "  validator {arguments} --device cpu --genesis"
    ));
    term::line("\nReady. Ctrl-C stops everything.");
}

//! The command line: one file per subcommand; the only place that reads the environment.

mod arguments;
mod chain;
pub mod check;
pub mod competitions;
pub mod diff;
pub mod evaluate;
pub mod flags;
pub mod inspect;
pub mod inspect_chain;
pub mod inspect_store;
pub mod models;
pub mod records;
mod reference;
pub mod replay;
pub mod run;
pub mod samples;
pub mod score;
pub mod set_weights;
pub mod status;
pub mod tokenize;
pub mod verify;
pub mod workers;

use std::future::Future;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use shared::{Exit, Failure, version::Version};

/// Validates Bittensor's fine-tuning subnet: downloads the models miners commit to, computes
/// their losses on fresh chat samples, compares them and sets weights on the chain.
///
/// Without a command, `run` is meant: `validator --wallet.name NAME --wallet.hotkey NAME`.
#[derive(Debug, Parser)]
#[command(name = "validator", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Evaluate models and set weights, until told to stop (the default command)
    Run(Box<run::RunArgs>),
    /// Show the competitions of the subnet file
    Competitions(competitions::Args),
    /// Compute a model's losses as the validator would
    Evaluate(Box<evaluate::Args>),
    /// Look at one part of what the validator knows
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Fetch, filter and draw samples as a step would
    Samples(Box<samples::SamplesArgs>),
    /// Compute wins and weights from a losses table or a step record
    Score(score::Args),
    /// Set weights by hand and prove that they arrived
    SetWeights(Box<set_weights::Args>),
    /// Show what conversations become before a model sees them
    Tokenize(tokenize::Args),
    /// Show how the running validator is
    Status(Box<status::StatusArgs>),
    /// Check wallet, chain, device, disk, samples and state, without running
    Check(Box<check::CheckArgs>),
    /// Compute the losses of a recorded step again and compare
    Replay(Box<replay::ReplayArgs>),
    /// Compare the step records of two validators
    Diff(diff::DiffArgs),
    /// Judge a model as the validator would
    Verify(Box<verify::VerifyArgs>),
}

/// Parses the command line, runs the command, prints what failed.
pub fn main(version: Version) -> Exit {
    let mut command = arguments::with_kebab_case(command(&version));
    let arguments = match arguments::expand(&command, std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(failure) => return failure.print(),
    };
    let parsed = command.try_get_matches_from_mut(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            return error.print().map_or(Exit::Failed, |()| exit);
        }
    };
    run(cli, version).unwrap_or_else(|failure| failure.print())
}

fn command(version: &Version) -> clap::Command {
    Cli::command().version(version.to_string())
}

fn run(cli: Cli, version: Version) -> Result<Exit, Failure> {
    match cli.command {
        Command::Run(args) => run::run(&args, version),
        Command::Competitions(args) => competitions::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Inspect(kind) => inspect::run(&kind),
        Command::Samples(args) => samples::run(&args),
        Command::Score(args) => score::run(&args),
        Command::SetWeights(args) => set_weights::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => check::run(&args, version),
        Command::Replay(args) => replay::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}

/// Runs an asynchronous command to its end.
pub fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(Exit::Machine, "could not start the async runtime").because(error)
        })?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        let version = shared::version!();
        super::arguments::with_kebab_case(super::command(&version)).debug_assert();
    }
}

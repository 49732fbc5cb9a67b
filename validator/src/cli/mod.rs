//! The command line: one file per subcommand; the only place that reads the environment.

pub mod competitions;
pub mod score;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use shared::{Exit, Failure, version::Version};

/// Validates Bittensor's fine-tuning subnet: downloads the models miners commit to, computes
/// their losses on fresh chat samples, compares them and sets weights on the chain.
#[derive(Debug, Parser)]
#[command(name = "validator", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the competitions of the subnet file
    Competitions(competitions::Args),
    /// Compute wins and weights from a losses table or a step record
    Score(score::Args),
}

/// Parses the command line, runs the command, prints what failed.
pub fn main(version: Version) -> Exit {
    let parsed = Cli::command()
        .version(version.to_string())
        .try_get_matches();
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
    run(cli).unwrap_or_else(|failure| failure.print())
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Competitions(args) => competitions::run(&args),
        Command::Score(args) => score::run(&args),
    }
}

//! The command line: one file for each subcommand.

mod adopt_pm2;
mod check;
mod configure;
mod doctor;
mod history;
mod launch;
mod layers;
mod logs;
mod options;
mod query;
mod restart;
mod rollback;
mod run;
mod sign;
mod status;
mod stop;
mod update;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use shared::{Exit, Failure, version::Version};

use self::{
    adopt_pm2::AdoptPm2Args, doctor::DoctorArgs, launch::LaunchArgs, layers::Parsed,
    logs::LogsArgs, options::RunOptions, query::Query, sign::SignArgs, update::UpdateArgs,
};
use crate::{config::Config, worker};

/// Keep one program built from a git branch alive and up to date
///
/// Builds new commits beside the running version, proves them, switches at a safe moment, and goes
/// back by itself when the new version fails. Run it in a git checkout; what follows `--` goes to
/// the child unchanged.
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    #[command(flatten)]
    run: RunOptions,
}

/// What can be asked of a supervisor.
#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Keep the child alive and up to date (the default)
    Run(Box<RunOptions>),
    /// Show how the child and its updates are
    Status(Query),
    /// Restart the child
    Restart(Query),
    /// Stop the child and its supervisor
    Stop(Query),
    /// Show the child's log
    Logs(LogsArgs),
    /// Say what an update would do, changing nothing
    Check(Query),
    /// Look for an update now and apply it
    Update(UpdateArgs),
    /// Go back to the previous release
    Rollback(Query),
    /// List what happened to each update
    History(Query),
    /// Check that everything an update needs is there
    Doctor(Box<DoctorArgs>),
    /// Show how to move a validator from pm2 to this supervisor
    AdoptPm2(AdoptPm2Args),
    /// Sign a release archive, or make a key for that
    Sign(SignArgs),
    /// Set limits, then become the child
    #[command(hide = true)]
    Launch(LaunchArgs),
    /// Carry out one step of an update
    #[command(hide = true)]
    Worker { supervisor: u32 },
}

impl Cli {
    /// Returns the options of `run`, spelled out or not.
    fn into_run(self) -> RunOptions {
        match self.command {
            Some(CliCommand::Run(run)) => *run,
            _ => self.run,
        }
    }
}

/// Parses the command line and does what it says.
pub fn main(line: &[OsString], version: Version) -> Result<Exit, Failure> {
    let cli = match layers::parse::<Cli>(line, version)? {
        Parsed::Text(text) => {
            shared::term::line(text.trim_end());
            return Ok(Exit::Ok);
        }
        Parsed::Args(cli) => *cli,
    };
    match cli.command {
        None => start(cli.run, line, version),
        Some(CliCommand::Run(options)) => start(*options, line, version),
        Some(CliCommand::Status(query)) => status::run(&query),
        Some(CliCommand::Restart(query)) => restart::run(&query),
        Some(CliCommand::Stop(query)) => stop::run(&query),
        Some(CliCommand::Logs(args)) => logs::run(&args),
        Some(CliCommand::Check(query)) => check::run(&query),
        Some(CliCommand::Update(args)) => update::run(&args),
        Some(CliCommand::Rollback(query)) => rollback::run(&query),
        Some(CliCommand::History(query)) => history::run(&query),
        Some(CliCommand::Doctor(args)) => doctor::run(*args),
        Some(CliCommand::AdoptPm2(args)) => adopt_pm2::run(&args),
        Some(CliCommand::Sign(args)) => sign::run(&args),
        Some(CliCommand::Launch(args)) => launch::run(&args),
        Some(CliCommand::Worker { supervisor }) => Ok(worker::run(supervisor)),
    }
}

/// Starts a supervisor that can read its options again, for SIGHUP.
fn start(options: RunOptions, line: &[OsString], version: Version) -> Result<Exit, Failure> {
    let line = line.to_vec();
    let reload = Box::new(move || -> Result<Config, Failure> {
        match layers::parse::<Cli>(&line, version)? {
            Parsed::Args(cli) => configure::configure(cli.into_run()),
            Parsed::Text(_) => Err(Failure::new(
                Exit::Bug,
                "the command line has changed its meaning",
            )),
        }
    });
    run::run(options, reload, version)
}

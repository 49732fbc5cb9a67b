//! The command line: one file for each subcommand.

mod adopt_pm2;
mod check;
mod configure;
mod confine;
mod doctor;
mod history;
mod logs;
mod options;
mod own;
mod query;
mod restart;
mod rollback;
mod run;
mod sign;
mod status;
mod stop;
mod update;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use shared::{
    Exit, Failure,
    cli::{self, Parsed},
    version::Version,
};

use self::{
    adopt_pm2::AdoptPm2Args, doctor::DoctorArgs, logs::LogsArgs, options::RunOptions, query::Query,
    sign::SignArgs, update::UpdateArgs,
};
use crate::config::{Config, shown};

/// Keep one program built from a git branch alive and up to date
///
/// Builds new commits beside the running version, proves them, switches at a safe moment, and goes
/// back by itself when the new version fails. Run it in a git checkout; what follows `--` goes to
/// the child unchanged.
///
/// Each option is a variable too (--stop-timeout is SUPERVISOR_STOP_TIMEOUT) and a key of the file of
/// --config (stop-timeout). Flags beat the environment, the environment beats the file.
#[derive(Debug, Parser)]
#[command(name = "supervisor")]
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
    /// Print completions for a shell
    Completions(cli::CompletionsArgs),
    /// Write pages for man
    Man(cli::ManArgs),
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
pub fn main(version: Version) -> Exit {
    let line: Vec<OsString> = std::env::args_os().collect();
    own::main(&line).unwrap_or_else(|| {
        cli::main(command(version), &line, hint, |cli| {
            run(cli, &line, version)
        })
    })
}

fn command(version: Version) -> clap::Command {
    Cli::command().version(version.to_string())
}

fn run(cli: Cli, line: &[OsString], version: Version) -> Result<Exit, Failure> {
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
        Some(CliCommand::Completions(args)) => Ok(args.run(command(version))),
        Some(CliCommand::Man(args)) => args.run(command(version)),
    }
}

/// Starts a supervisor that can read its options again, for SIGHUP.
fn start(options: RunOptions, line: &[OsString], version: Version) -> Result<Exit, Failure> {
    let line = line.to_vec();
    let reload = Box::new(move || -> Result<Config, Failure> {
        match cli::parse::<Cli>(command(version), &line, hint)? {
            Parsed::Command(cli) => configure::configure(cli.into_run()),
            Parsed::Text(_) => Err(Failure::new(
                Exit::Bug,
                "the command line has changed its meaning",
            )),
        }
    });
    run::run(options, reload, version)
}

/// The old script gave every flag it did not know to the child; here `--` says where they begin.
fn hint(error: &clap::Error, line: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument || line.iter().any(|word| word == "--") {
        return None;
    }
    let unknown = error.get(clap::error::ContextKind::InvalidArg)?.to_string();
    let at = line
        .iter()
        .position(|word| word.to_string_lossy().starts_with(unknown.as_str()))?;
    let (ours, theirs) = (line.get(1..at)?, line.get(at..)?);
    // What only asks a supervisor starts no child.
    let asks = |word: &OsString| word != "run" && Cli::command().find_subcommand(word).is_some();
    if line.iter().skip(1).any(asks) {
        return None;
    }
    Some(format!(
        "what the child gets follows `--`: supervisor {} -- {}",
        shown(ours),
        shown(theirs)
    ))
}

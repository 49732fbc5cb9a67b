//! The command line: one file per subcommand; the only place that reads the environment.

mod alerts;
mod audit;
mod check;
mod competitions;
mod connect;
mod diff;
mod evaluate;
mod export;
mod flags;
mod inspect;
mod page;
mod recompute;
mod records;
mod reference;
mod replay;
mod report;
mod run;
mod runtime;
mod samples;
mod score;
mod set_weights;
mod show;
mod status;
mod tokenize;
mod verify;
mod workers;

use std::{env, ffi::OsString};

use clap::{CommandFactory as _, Parser, Subcommand};
use shared::{Exit, Failure, cli, version::Version};

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
    Competitions(competitions::CompetitionsArgs),
    /// Compute a model's losses as the validator would
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Look at one part of what the validator knows
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Fetch, filter and draw samples as a step would
    Samples(Box<samples::SamplesArgs>),
    /// Compute wins and weights from a losses table or a step record
    Score(score::ScoreArgs),
    /// Set weights by hand and prove that they arrived
    SetWeights(Box<set_weights::SetWeightsArgs>),
    /// Show what conversations become before a model sees them
    Tokenize(tokenize::TokenizeArgs),
    /// Answer a question about steps, models and weights, from the records
    #[command(subcommand)]
    Show(show::Show),
    /// Write a table of the records for other programs
    Export(Box<export::ExportArgs>),
    /// Write the pages as files, for a bucket or a web server
    Page(Box<page::PageArgs>),
    /// Print the alert rules for Prometheus
    Alerts(alerts::AlertsArgs),
    /// Show how the running validator is
    Status(Box<status::StatusArgs>),
    /// Check wallet, chain, device, disk, samples and state, without running
    Check(Box<check::CheckArgs>),
    /// Compute the losses of a recorded step again and compare
    Replay(Box<replay::ReplayArgs>),
    /// Compare the step records of two validators
    Diff(diff::DiffArgs),
    /// Check the published steps of another validator, without a wallet
    Audit(Box<audit::AuditArgs>),
    /// Judge a model as the validator would
    Verify(Box<verify::VerifyArgs>),
    /// Make a bundle for a bug report, without secrets
    Report(Box<report::ReportArgs>),
    /// Print completions for a shell
    Completions(cli::CompletionsArgs),
    /// Write pages for man
    Man(cli::ManArgs),
}

/// Parses the command line and does what it says.
pub fn main(version: Version) -> Exit {
    // The key would be in it. Only a limit that is lower already can be in the way.
    let _ = shared::process::no_core_dumps();
    let line = with_command(env::args_os().collect());
    cli::main(
        command(&version),
        &line,
        |_, _| None,
        |cli| run(cli, version),
    )
}

/// Inserts `run` where no command is named: the Python validator knew no other.
fn with_command(mut line: Vec<OsString>) -> Vec<OsString> {
    let first = line.get(1).and_then(|first| first.to_str());
    let own = ["-h", "--help", "-V", "--version"];
    if first.is_some_and(|first| first.starts_with('-') && !own.contains(&first)) {
        line.insert(1, "run".into());
    }
    line
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
        Command::Show(what) => show::run(&what),
        Command::Export(args) => export::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Alerts(_) => Ok(alerts::run()),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => check::run(&args, version),
        Command::Replay(args) => replay::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Audit(args) => audit::run(&args, &version),
        Command::Verify(args) => verify::run(&args),
        Command::Report(args) => report::run(&args, &version),
        Command::Completions(args) => Ok(args.run(command(&version))),
        Command::Man(args) => args.run(command(&version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &clap::Command) -> Vec<&clap::Command> {
        let below = command.get_subcommands().flat_map(all);
        std::iter::once(command).chain(below).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command(&shared::version!()).debug_assert();
    }

    #[test]
    fn run_is_the_default_command() {
        let line = |words: &[&str]| with_command(words.iter().map(OsString::from).collect());
        let run = line(&["validator", "--wallet.name", "x"]);
        assert_eq!(run, ["validator", "run", "--wallet.name", "x"]);
        for own in [
            &["validator", "score", "-"][..],
            &["validator", "--help"],
            &["validator"],
        ] {
            assert_eq!(line(own), own);
        }
    }

    #[test]
    fn every_path_becomes_absolute() {
        let command = command(&shared::version!());
        for command in all(&command) {
            for argument in command.get_arguments() {
                let kind = format!("{:?}", argument.get_value_parser());
                assert!(
                    !kind.contains("path_buf"),
                    "{} {}: take a `FullPath`",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }

    #[test]
    fn the_flags_of_run_are_in_groups() {
        let command = command(&shared::version!());
        let run = command.find_subcommand("run").unwrap();
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for argument in run
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
        {
            let heading = argument.get_help_heading().unwrap_or("Options");
            match groups.iter_mut().find(|(known, _)| *known == heading) {
                Some((_, count)) => *count += 1,
                None => groups.push((heading, 1)),
            }
        }
        let groups: Vec<String> = groups
            .iter()
            .map(|(heading, count)| format!("{heading} {count}"))
            .collect();
        insta::assert_snapshot!(groups.join(", "), @"Options 1, Wallet 3, Chain 4, Models 8, Hub 4, Samples 10, Evaluation 11, Weights 2, W&B 8, Watching 6, State 6, Log 5");
    }
}

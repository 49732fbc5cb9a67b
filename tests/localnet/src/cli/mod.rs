//! The command line; the only place that reads the environment.

mod up;

use std::{future::Future, io::IsTerminal as _, path::PathBuf, sync::Mutex, time::Duration};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use indicatif::ProgressBar;
use shared::{Exit, Failure, log, shutdown::Shutdown, task::TaskSet, term, version::Version};

use crate::demo;

/// A whole subnet on this machine: chain, Hugging Face hub, miners, chat samples, a stand-in for
/// W&B and a git remote. Without a command it stays up until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "localnet", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::UpArgs,
    /// Log filter, such as `info,localnet=debug`
    #[arg(long, global = true, value_name = "FILTER", default_value = "warn")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play the whole story with the real supervisor and validator, then stop
    Demo(Box<DemoArgs>),
}

/// Where files go and what decides them.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Folder of wallets, models and samples; models are trained once for a folder and seed
    #[arg(long, value_name = "DIR", default_value = "target/localnet")]
    state_dir: PathBuf,
    /// Decides keys, models and samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Checkout whose last commit the git remote offers
    #[arg(long, value_name = "DIR", default_value = ".")]
    source: PathBuf,
}

#[derive(Debug, Args)]
struct DemoArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Trouble to rehearse, comma-separated, such as hub-429,chain-stall
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    fault: Vec<demo::Trouble>,
    /// Cargo profile of what the demo builds [default: the one this program was built with]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
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
    log::init(&cli.log, log::Format::Text);
    let outcome = match cli.command {
        None => run(|shutdown| up::run(cli.up, shutdown)),
        Some(Command::Demo(args)) => run(|shutdown| {
            let plan = demo::Plan {
                state_dir: args.place.state_dir.join("demo"),
                seed: args.place.seed,
                source: args.place.source,
                troubles: args.fault,
                profile: args.profile.unwrap_or_else(own_profile),
            };
            demo::run(plan, shutdown)
        }),
    };
    outcome.unwrap_or_else(|failure| failure.print())
}

/// Returns the cargo profile this program was built with, by the folder it lies in, so that a demo
/// compiles little again.
fn own_profile() -> String {
    let program = std::env::current_exe().ok();
    let folder = program
        .as_deref()
        .and_then(|program| program.parent()?.file_name());
    match folder.map(|name| name.to_string_lossy().into_owned()) {
        Some(name) if name != "debug" => name,
        _ => "dev".to_owned(),
    }
}

/// Runs a command that stops by itself or on Ctrl-C.
fn run<F>(command: impl FnOnce(Shutdown) -> F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        Failure::of(Exit::Machine, &error).because("could not start the async runtime")
    })?;
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let mut tasks = TaskSet::new();
        let signals = shutdown.clone();
        tasks.spawn("signals", async {
            signals
                .listen()
                .await
                .map_err(|error| Failure::of(Exit::Machine, &error))
        });
        command(shutdown).await
    });
    // Training on another thread is not worth waiting for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Shows what is being done: a spinner on a terminal, a line for each new thing elsewhere.
struct Progress {
    spinner: ProgressBar,
    last: Mutex<String>,
}

impl Progress {
    fn new() -> Self {
        Self {
            spinner: term::spinner(""),
            last: Mutex::default(),
        }
    }

    fn show(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            self.spinner.set_message(what.to_owned());
            return;
        }
        let heading = what.split(':').next().unwrap_or(what);
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != heading {
            heading.clone_into(&mut last);
            term::note(format_args!("… {heading}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

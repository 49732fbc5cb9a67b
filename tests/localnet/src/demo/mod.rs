//! The demo: the real supervisor builds and runs the real validator on a local subnet, sets
//! weights, updates itself; each thing shown is checked.

mod programs;
mod record;
mod refusals;
mod scenes;
mod story;
mod trouble;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use shared::{
    Exit, Failure,
    shutdown::{Shutdown, Stop},
    term,
};

use programs::Supervisor;
pub use trouble::{CHAIN_TROUBLE, Service, Trouble, UnknownTrouble};

use crate::{Localnet, Options};

#[derive(Debug, Clone)]
pub struct Plan {
    pub state_dir: PathBuf,
    /// Decides keys, models and samples.
    pub seed: u64,
    pub source: PathBuf,
    pub troubles: Vec<Trouble>,
    /// Cargo profile of what is built.
    pub profile: String,
}

/// Wall clock between two blocks; on the chain it is 12 s.
const BLOCK_TIME: Duration = Duration::from_millis(500);
/// How long the supervisor has to stop itself and the validator.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What must be cleared away at the end, however the play ends.
#[derive(Debug, Default)]
struct Stage {
    subnet: Option<Localnet>,
    supervisor: Option<Supervisor>,
}

/// Plays the demo until it ends or is stopped, and leaves no process and no port behind.
pub async fn run(plan: Plan, shutdown: Shutdown) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut stage = Stage::default();
    let played = tokio::select! {
        played = story::play(&plan, &mut stage) => Some(played),
        () = shutdown.requested() => None,
    };
    if played.is_none() {
        term::note("stopping the supervisor and the validator (Ctrl-C again: at once)");
    }
    let left = stage.clear(&shutdown).await;
    match (played, left) {
        (None, Ok(())) => {
            term::note("stopped; nothing is left behind");
            Ok(Exit::Interrupted)
        }
        (Some(Err(failure)), left) => Err(left.err().into_iter().fold(failure, Failure::because)),
        (_, Err(left)) => Err(left),
        (Some(Ok(report)), Ok(())) => {
            term::line(report);
            let seconds = began.elapsed().as_secs();
            term::line(format_args!(
                "\nDone in {} min {} s. No process and no port is left; logs, records and state \
                 are in {}.",
                seconds / 60,
                seconds % 60,
                plan.state_dir.display()
            ));
            Ok(Exit::Ok)
        }
    }
}

impl Stage {
    async fn clear(&mut self, shutdown: &Shutdown) -> Result<(), Failure> {
        let stopped = match self.supervisor.take() {
            Some(supervisor) => {
                supervisor
                    .stop(STOP_LIMIT, shutdown.reached(Stop::Now))
                    .await
            }
            None => Ok(()),
        };
        // The ports close with the subnet.
        self.subnet = None;
        stopped
    }

    fn subnet(&self) -> Result<&Localnet, Failure> {
        self.subnet
            .as_ref()
            .ok_or_else(|| Failure::new(Exit::Bug, "the subnet is not up"))
    }
}

/// What a demo subnet starts with.
fn options(plan: &Plan) -> Options {
    Options {
        state_dir: Some(plan.state_dir.clone()),
        seed: plan.seed,
        // Two demos side by side have the same keys.
        chain_id: rand::random(),
        // The chain stands still until the validator runs: a build may take long, and after some
        // epochs a validator that starts anew takes old commitments for known ones.
        block_time: None,
        source: Some(plan.source.clone()),
        ..Options::default()
    }
}

/// What an earlier demo left and a new one must not find. The trained models stay, and so do the
/// checkout and the supervisor's source and releases: the same commit need not be built twice.
const LEFT: [&str; 11] = [
    "validator",
    "models-cache",
    "hf",
    "supervisor/demo/journal.json",
    "supervisor/demo/history.jsonl",
    "supervisor/demo/boot.json",
    "supervisor/demo/current",
    "supervisor/demo/previous",
    "supervisor/demo/status.json",
    "supervisor/demo/logs",
    "supervisor/supervisor.log",
];

fn sweep(folder: &Path) -> Result<(), Failure> {
    for path in LEFT.map(|name| folder.join(name)) {
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(|error| {
            Failure::of(Exit::Machine, &error)
                .because(format_args!("could not remove {}", path.display()))
        })?;
    }
    Ok(())
}

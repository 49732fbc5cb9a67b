//! The running validator: builds the parts in order, starts named tasks, waits, drains.

mod admin;
mod chain_watcher;
pub mod check;
mod cleaner;
mod model_sync;
mod origin;
mod samples;
mod start;
mod step_loop;
mod wandb;
mod weights;

use std::{path::PathBuf, sync::Arc, time::Duration};

use shared::{
    Exit, Failure,
    file::FileLock,
    notify,
    shutdown::{Shutdown, Stop},
    status::Health,
    task::{Ended, TaskSet},
    term,
};
use tokio::{
    sync::{Mutex, Notify, broadcast, watch},
    time::{Instant, timeout_at},
};

use crate::step::{self, Context};
use ::samples::Settings as SampleSettings;
use chain::{ChainSnapshot, Client, Endpoints, Passwords, Wallet, WalletPath, weights::TwinGuard};
use models::{Hub, HubOptions, Store, store::Limits, sync::Sync};
use subnet::BlockNumber;

pub use self::admin::STATUS;

/// How long the tasks may take to stop before they are aborted.
const DRAIN: Duration = Duration::from_secs(20);

/// So many records of steps wait for those who listen; then the oldest is dropped.
const RECORDS: usize = 16;

/// What the command line asks for.
#[derive(Debug)]
pub struct Settings {
    /// How steps are computed.
    pub step: step::Settings,
    /// Our version, with its commit.
    pub version: String,
    /// Folder of the state.
    pub folder: PathBuf,
    /// A second place for the status file: the supervisor's.
    pub status_file: Option<PathBuf>,
    /// The chain's nodes.
    pub endpoints: Endpoints,
    /// Where the hotkey lies.
    pub wallet: WalletPath,
    /// Where the password of an encrypted hotkey comes from.
    pub passwords: Arc<Passwords>,
    /// No weights, no registration check, no W&B; chain data may be old.
    pub offline: bool,
    /// Weights are computed and never set.
    pub dont_set_weights: bool,
    /// Start from nothing rather than from state or consensus.
    pub genesis: bool,
    /// Least time between looks at a uid's commitment.
    pub update_delay: Duration,
    /// How long models that nobody needs are kept.
    pub grace: Duration,
    /// Where models lie.
    pub model_folder: PathBuf,
    /// How much disk they may take.
    pub limits: Limits,
    /// How the hub is reached.
    pub hub: HubOptions,
    /// How samples are got.
    pub samples: SampleSettings,
    /// Samples drawn for each step.
    pub sample_count: usize,
    /// How workers are started.
    pub workers: eval::Options,
    /// Where rows of the steps go, if anywhere.
    pub wandb: Option<report::wandb::Settings>,
    /// Stop after this many steps.
    pub max_steps: Option<u64>,
}

/// What the tasks share.
pub struct Parts {
    settings: Settings,
    context: Context,
    /// `None` without a chain.
    client: Option<Client>,
    /// The newest snapshot.
    snapshots: watch::Sender<Arc<ChainSnapshot>>,
    /// Height of the newest block.
    head: watch::Sender<BlockNumber>,
    sync: Sync,
    store: Store,
    hub: Hub,
    /// Our keys.
    wallet: Arc<Wallet>,
    /// A model was verified or refused.
    news: Notify,
    /// A step was completed.
    completed: Notify,
    /// Whether commitments are being looked at right now.
    syncing: watch::Sender<bool>,
    /// Nobody else runs on this state.
    _lock: FileLock,
    /// Nobody else sets weights with this hotkey.
    twin: Mutex<TwinGuard>,
    shutdown: Shutdown,
}

/// Runs the validator until it is told to stop, or fails.
pub async fn run(settings: Settings) -> Result<Exit, Failure> {
    let shutdown = Shutdown::new();
    let mut tasks = TaskSet::new();
    tasks.spawn("signals", listen(shutdown.clone()));
    let parts = tokio::select! {
        parts = start::build(settings, shutdown.clone()) => Arc::new(parts?),
        () = shutdown.requested() => return Ok(Exit::Interrupted),
    };
    notify::ready();
    let context = &parts.context;
    term::note(format_args!(
        "ready: hotkey {} on subnet {}",
        context.hotkey, context.settings.parameters.netuid
    ));
    tasks.spawn("chain watcher", chain_watcher::run(Arc::clone(&parts)));
    tasks.spawn("model sync", model_sync::run(Arc::clone(&parts)));
    tasks.spawn("samples", samples::run(Arc::clone(&parts)));
    tasks.spawn("cleaner", cleaner::run(Arc::clone(&parts)));
    tasks.spawn("admin", admin::run(Arc::clone(&parts)));
    // The loop alone holds the sender: its listeners end after it, with its last record.
    let (records, rows) = broadcast::channel(RECORDS);
    if let Some(wandb) = parts.settings.wandb.clone() {
        tasks.spawn("wandb", wandb::run(Arc::clone(&parts), wandb, rows));
    }
    tasks.spawn("step loop", step_loop::run(Arc::clone(&parts), records));
    if parts.sets_weights() {
        tasks.spawn("weights", weights::run(Arc::clone(&parts)));
    }
    let ended = supervise(&mut tasks, &shutdown).await;
    context.evaluator.shut_down().await;
    context.board.phase("stopped");
    admin::write(&parts);
    ended
}

async fn listen(shutdown: Shutdown) -> Result<(), Failure> {
    shutdown
        .listen()
        .await
        .map_err(|error| Failure::new(Exit::Machine, "could not listen for signals").because(error))
}

/// Waits for the first task to end or the order to stop, then drains.
async fn supervise(tasks: &mut TaskSet, shutdown: &Shutdown) -> Result<Exit, Failure> {
    let first = tokio::select! {
        () = shutdown.requested() => None,
        ended = tasks.next() => ended,
    };
    let mut verdict = first.map_or(Ok(Exit::Ok), |(name, ended)| verdict_of(name, ended));
    notify::stopping();
    shutdown.request(Stop::Drain);
    let deadline = Instant::now() + DRAIN;
    loop {
        let next = tokio::select! {
            next = timeout_at(deadline, tasks.next()) => next,
            () = shutdown.reached(Stop::Now) => break,
        };
        match next {
            Ok(Some((name, ended))) => {
                let ended = verdict_of(name, ended);
                verdict = verdict.and(ended);
            }
            Ok(None) => break,
            Err(_) => {
                tracing::warn!(tasks = ?tasks.running(), "did not stop in time: aborted");
                break;
            }
        }
        if tasks.running() == ["signals"] {
            break;
        }
    }
    tasks.abort_all();
    verdict
}

fn verdict_of(name: &'static str, ended: Ended) -> Result<Exit, Failure> {
    match ended {
        Ended::Finished(Ok(())) | Ended::Aborted => Ok(Exit::Ok),
        Ended::Finished(Err(failure)) => Err(failure),
        Ended::Panicked(message) => Err(Failure::new(
            Exit::Bug,
            format_args!("the {name} task panicked: {message}"),
        )
        .hint("this is a bug: please report it with the log")),
    }
}

impl Parts {
    fn sets_weights(&self) -> bool {
        self.client.is_some() && !self.settings.offline && !self.settings.dont_set_weights
    }

    /// Returns the newest snapshot.
    fn snapshot(&self) -> Arc<ChainSnapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Writes that an outside or machine fault stands in the way.
    fn fault(&self, key: &'static str, fault: &subnet::Fault, often: u32) {
        use subnet::FaultKind;
        let health = match fault.kind {
            FaultKind::Machine if often > 2 => Health::Red,
            FaultKind::Config => Health::Red,
            _ => Health::Yellow,
        };
        self.context.board.problem(key, health, fault);
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

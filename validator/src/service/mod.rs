//! The running validator: opens what it needs, starts named tasks, waits, drains.
//!
//! Each task is a struct of the few handles that it uses; `wiring` makes them. Who wakes whom:
//!
//! ```text
//!  chain ──blocks──> chain watcher ──head──────────> weights ──weights──> chain
//!                          │        ──head──────────> step loop, prefetch
//!                          └─snapshots─> model sync, step loop (which takes one more at each step)
//!  hub ──models──> model sync ──news, syncing──> step loop ──completed──> cleaner
//!  sources ──samples──> prefetch <──taken── step loop ──records──> wandb ──rows──> W&B
//!                                                └──────> publisher ──> folder, bucket
//!  every task ──changes──> board ──> admin ──> status.json, metrics.prom
//!                                ├──> metrics, notifier ──> whoever watches
//!                                └──> history ──> events.jsonl, index.sqlite
//!  SIGTERM, first task to end ──shutdown──> every task
//! ```
//!
//! State, tracker and store wake nobody: who is woken reads them. Weights wait for no step, no hub
//! and no disk.

mod admin;
mod chain_view;
mod chain_watcher;
pub mod check;
mod cleaner;
mod connect;
mod dashboard;
mod disk;
mod gate;
mod history;
mod known;
mod library;
mod losses;
mod metrics;
mod model_sync;
mod notifier;
mod observers;
mod origin;
mod pages;
mod patience;
mod postponed;
mod publisher;
mod samples;
mod start;
mod step_loop;
mod tokenizers;
mod wakeups;
mod wandb;
mod weights;
mod wiring;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use shared::{
    Exit, Failure, clock,
    file::{self, FileLock},
    notify,
    notify_target::NotifyTarget,
    shutdown::{Shutdown, Stop},
    status::Health,
    task::{Ended, TaskSet},
    term,
};
use tokio::time::{Instant, timeout_at};

use self::{
    admin::Admin,
    notifier::Notifier,
    wiring::{Tasks, WeightsOrNot},
};
use crate::{hints::lock_failure, step};
use ::samples::FetcherSettings;
use chain::{Endpoints, Passwords, WalletPath};
use hub::HubOptions;
use models::store::StoreLimits;
use report::{
    board::{Alarms, Board},
    meters::Meters,
    publication::PublishPlace,
    status::{Activity, Details, Start},
};
use subnet::{Fault, FaultKind};

pub use self::{
    admin::{METRICS, STATUS},
    dashboard::{Dashboard, DashboardToken},
    known::Known,
    pages::write_site,
};

/// How long the tasks may take to stop before they are aborted.
const DRAIN: Duration = Duration::from_secs(20);

/// What the command line asks for.
#[derive(Debug)]
pub struct Settings {
    pub step: step::Settings,
    /// Our version, with its commit.
    pub version: String,
    pub folder: PathBuf,
    /// A second place for the status file: the supervisor's.
    pub status_file: Option<PathBuf>,
    /// Folder of the supervisor that started us.
    pub supervisor: Option<PathBuf>,
    pub endpoints: Endpoints,
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
    pub model_folder: PathBuf,
    /// How much disk they may take.
    pub limits: StoreLimits,
    /// How the hub is reached.
    pub hub: HubOptions,
    pub samples: FetcherSettings,
    /// Samples drawn for each step.
    pub sample_count: usize,
    pub workers: eval::Options,
    /// Where rows of the steps go, if anywhere.
    pub wandb: Option<report::wandb::LoggerSettings>,
    /// Stop after this many steps.
    pub max_steps: Option<u64>,
    /// Whom to tell of problems that last.
    pub notify: Vec<NotifyTarget>,
    /// Where metrics are served, if anywhere.
    pub metrics_addr: Option<SocketAddr>,
    /// Where the pages are served, if anywhere.
    pub dashboard: Option<Dashboard>,
    /// Where the pages are written after each step, if anywhere.
    pub site: Option<PathBuf>,
    /// Where records and samples are published, if anywhere.
    pub publish: Option<PublishPlace>,
}

/// Runs the validator until it is told to stop, or fails.
pub async fn run(settings: Settings) -> Result<Exit, Failure> {
    let shutdown = Shutdown::new();
    let mut tasks = TaskSet::new();
    tasks.spawn("signals", listen(shutdown.clone()));
    // Before the status: that of whoever runs on this state is not ours to write.
    let _lock = FileLock::try_acquire(&settings.folder.join("lock"), "validator")
        .map_err(|error| lock_failure(&error))?;
    file::clear_temporary(&settings.folder).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let left = admin::left_behind(&settings.folder);
    let (board, alarms) = Board::new(Details {
        netuid: settings.step.parameters.netuid,
        start: Start::after(left.as_ref().map(|status| &status.details)),
        activity: Activity::OpeningWallet,
        supervisor: settings
            .supervisor
            .as_ref()
            .map(|folder| folder.display().to_string()),
        ..Details::default()
    });
    let meters = Meters::default();
    let admin = Admin::new(&settings, board.clone(), meters.clone(), shutdown.clone());
    if let Some(address) = settings.metrics_addr {
        let listener = http_server::listen(address, "--metrics-addr")?;
        let serving = metrics::serve(
            listener,
            board.clone(),
            settings.version.clone(),
            meters.clone(),
        );
        tasks.spawn("metrics", serving);
    }
    tasks.spawn("admin", admin.clone().run());
    if let Some(dashboard) = settings.dashboard.clone() {
        let listener = http_server::listen(dashboard.address, "--dashboard")?;
        let folder = settings.folder.clone();
        tasks.spawn(
            "dashboard",
            dashboard::serve(listener, dashboard, board.clone(), folder),
        );
    }
    if !settings.notify.is_empty() {
        let targets = settings.notify.clone();
        let notifier = Notifier::new(board.clone(), targets, shutdown.clone())?;
        tasks.spawn("notifier", notifier.run());
    }
    let ended = work(settings, &mut tasks, &board, alarms, &shutdown, meters).await;
    board.ended(ended.as_ref().err());
    admin.write();
    ended
}

/// Starts, runs and stops the tasks.
async fn work(
    settings: Settings,
    tasks: &mut TaskSet,
    board: &Board,
    alarms: Alarms,
    shutdown: &Shutdown,
    meters: Meters,
) -> Result<Exit, Failure> {
    let opened = tokio::select! {
        opened = start::open(&settings, board, &alarms, &meters) => opened?,
        () = shutdown.requested() => return Ok(Exit::Interrupted),
    };
    let evaluator = Arc::clone(&opened.evaluator);
    let (hotkey, netuid) = (opened.wallet.hotkey(), opened.snapshot.netuid);
    let Tasks {
        chain_watcher,
        model_sync,
        prefetch,
        cleaner,
        history,
        wandb,
        publisher,
        step_loop,
        weights,
    } = wiring::tasks(settings, opened, board, alarms, shutdown, meters)?;
    notify::ready();
    board.note(|details| details.start.ready_at = Some(clock::now()));
    term::note(format_args!("ready: hotkey {hotkey} on subnet {netuid}"));
    if let Some(watcher) = chain_watcher {
        tasks.spawn("chain watcher", watcher.run());
    }
    tasks.spawn("model sync", model_sync.run());
    tasks.spawn("samples", prefetch.run());
    tasks.spawn("cleaner", cleaner.run());
    tasks.spawn("history", history.run());
    if let Some(wandb) = wandb {
        tasks.spawn("wandb", wandb.run());
    }
    if let Some(publisher) = publisher {
        tasks.spawn("publisher", publisher.run());
    }
    tasks.spawn("step loop", step_loop.run());
    let _idle = match weights {
        WeightsOrNot::Set(weights) => {
            tasks.spawn("weights", weights.run());
            None
        }
        WeightsOrNot::Unset { twin } => Some(twin),
    };
    let ended = supervise(tasks, shutdown).await;
    evaluator.shut_down().await;
    ended
}

async fn listen(shutdown: Shutdown) -> Result<(), Failure> {
    shutdown.listen().await.map_err(|error| {
        Failure::new(Exit::Machine, "could not listen for signals").caused_by(&error)
    })
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
        // They have nothing to finish.
        if tasks
            .running()
            .iter()
            .all(|name| ["dashboard", "metrics", "signals"].contains(name))
        {
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

/// Returns how bad a fault is that stands in the way for the `times`-th time.
fn severity(fault: &Fault, times: u32) -> Health {
    match fault.kind {
        FaultKind::Machine if times > 2 => Health::Red,
        FaultKind::Config => Health::Red,
        _ => Health::Yellow,
    }
}

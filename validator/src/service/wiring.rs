//! The wiring: gives each task the handles it needs, and nothing else.

use std::{sync::Arc, time::Duration};

use shared::{Exit, Failure, shutdown::Shutdown};
use tokio::sync::broadcast;

use super::{
    Settings,
    chain_view::ChainView,
    chain_watcher::{self, ChainWatcher},
    cleaner::Cleaner,
    disk::DiskWatch,
    gate::Gate,
    history::History,
    library::Library,
    losses::Losses,
    model_sync::{ModelSync, TrackerFile},
    publisher::Publisher,
    samples::{Draws, Prefetch},
    start::Opened,
    step_loop::{Memory, StepLoop},
    tokenizers::TokenizerWatch,
    wakeups::Wakeups,
    wandb::{self, Wandb},
    weights::{
        self, Terms, WeightSetter,
        footing::Footing,
        watch::{Reveals, Twins},
    },
};
use crate::{
    state::Kept,
    step::{Context, Sign},
};
use chain::{ChainSnapshot, Client, Wallet, weights::TwinGuard};
use hub::Hub;
use models::{Store, Sync, SyncOptions, Tracker, Verifier};
use report::{
    StepRecord,
    board::{Alarm, Alarms, Board},
    meters::Meters,
};
use subnet::{Hotkey, Parameters};

/// So many records of steps wait for those who listen; then the oldest is dropped.
const RECORDS: usize = 16;

/// Every task, ready to run.
#[derive(Debug)]
pub(super) struct Tasks {
    /// `None` without a chain.
    pub(super) chain_watcher: Option<ChainWatcher>,
    pub(super) model_sync: ModelSync,
    pub(super) prefetch: Prefetch,
    pub(super) cleaner: Cleaner,
    pub(super) history: History,
    pub(super) wandb: Option<Wandb>,
    pub(super) publisher: Option<Publisher>,
    pub(super) step_loop: StepLoop,
    pub(super) weights: WeightsOrNot,
}

/// Weights are set by their task; or they are not to be, and nobody else may use the hotkey.
#[derive(Debug)]
pub(super) enum WeightsOrNot {
    Set(Box<WeightSetter>),
    Unset { twin: TwinGuard },
}

/// What several tasks hold; none holds all of it.
struct Handles {
    chain: Arc<ChainView>,
    library: Arc<Library>,
    state: Arc<Kept>,
    draws: Arc<Draws>,
    board: Board,
    wakeups: Arc<Wakeups>,
}

/// Makes the tasks out of what was opened.
pub(super) fn tasks(
    settings: Settings,
    opened: Opened,
    board: &Board,
    alarms: Alarms,
    shutdown: &Shutdown,
    meters: Meters,
) -> Result<Tasks, Failure> {
    let Opened {
        wallet,
        twin,
        client,
        snapshot,
        gate,
        uid,
        models,
        evaluator,
        device,
        state,
        journal,
        supply,
    } = opened;
    let state = Kept::new(&settings.folder, state, alarms.state)
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let tracker = TrackerFile::new(&settings.folder, alarms.tracker);
    let chain = Arc::new(chain_view(&settings, client.clone(), snapshot, gate));
    let handles = Handles {
        library: Arc::new(library(&settings, models, tracker.load()?, &state)),
        draws: Arc::new(Draws::new(&settings.step, &chain, &supply)),
        chain,
        state: Arc::new(state),
        board: board.clone(),
        wakeups: Arc::new(Wakeups::new(shutdown.clone())),
    };
    let parameters = settings.step.parameters.clone();
    let weights_alarms = weights::Alarms {
        not_set: alarms.weights,
        overdue: alarms.weights_age,
    };
    let weights = match client.clone() {
        Some(client) if !settings.offline && !settings.dont_set_weights => {
            let twins = Twins::new(twin, alarms.twin);
            let reveals = Reveals::new(alarms.reveal);
            let (terms, wallet) = (Terms::of(&parameters), Arc::clone(&wallet));
            let task = handles.weights(client, wallet, terms, weights_alarms, twins, reveals);
            WeightsOrNot::Set(Box::new(task))
        }
        _ => WeightsOrNot::Unset { twin },
    };
    // The loop alone holds the sender: its listeners end after it, with its last record.
    let (records, rows) = broadcast::channel(RECORDS);
    let (hotkey, heard) = (wallet.hotkey(), records.subscribe());
    let history = handles.history(&settings, hotkey, client.clone(), heard, meters);
    let publisher = publisher(&settings, records.subscribe(), alarms.publish, shutdown);
    let wandb = settings.wandb.map(|given| Wandb {
        settings: wandb::complete(given, uid, &settings.version, &wallet),
        rows,
        alarm: alarms.wandb,
    });
    let context = Context {
        settings: settings.step,
        version: settings.version,
        hotkey: wallet.hotkey(),
        sign: signer(wallet),
        device,
        evaluator,
        store: handles.library.store.clone(),
        supply,
        sample_folder: settings.folder.join("samples"),
        state: Arc::clone(&handles.state),
        journal,
        board: board.clone(),
        sources_alarm: alarms.samples,
        snapshots: handles.chain.snapshots(),
    };
    let told = (alarms.step, alarms.losses, alarms.tokenizer);
    Ok(Tasks {
        chain_watcher: client.map(|client| {
            let alarms = chain_watcher::WatchAlarms {
                chain: alarms.chain,
                lag: alarms.chain_lag,
                subnet: alarms.subnet,
                registration: alarms.registration,
                commitments: alarms.commitments,
            };
            handles.chain_watcher(client, alarms, parameters, settings.update_delay)
        }),
        model_sync: handles.model_sync(tracker, alarms.models, settings.update_delay),
        prefetch: handles.prefetch(),
        cleaner: handles.cleaner(alarms.store, settings.grace),
        history,
        wandb,
        publisher,
        step_loop: handles.step_loop(context, told, settings.max_steps, records),
        weights,
    })
}

fn chain_view(
    settings: &Settings,
    client: Option<Client>,
    snapshot: ChainSnapshot,
    gate: Gate,
) -> ChainView {
    let commitments = settings.step.parameters.commitment.clone();
    ChainView::new(client, snapshot, gate, commitments, &settings.folder)
}

fn library(settings: &Settings, models: (Hub, Store), tracker: Tracker, state: &Kept) -> Library {
    let (hub, store) = models;
    let verifier = Verifier {
        hub: hub.clone(),
        store: Some(store.clone()),
    };
    let options = SyncOptions {
        update_delay: settings.update_delay,
        grace: settings.grace,
        min_block: state.look(|state| state.news_from),
        dtype: settings.step.dtype,
    };
    let parameters = &settings.step.parameters;
    Library {
        sync: Sync::new(verifier, parameters.clone(), options, tracker),
        hub,
        store,
        compatibility: parameters.compatibility,
    }
}

fn publisher(
    settings: &Settings,
    records: broadcast::Receiver<Arc<StepRecord>>,
    alarm: Alarm,
    shutdown: &Shutdown,
) -> Option<Publisher> {
    settings.publish.clone().map(|place| Publisher {
        place,
        folder: settings.folder.clone(),
        records,
        alarm,
        shutdown: shutdown.clone(),
    })
}

fn signer(wallet: Arc<Wallet>) -> Sign {
    Arc::new(move |bytes| wallet.sign(bytes))
}

impl Handles {
    fn chain_watcher(
        &self,
        client: Client,
        alarms: chain_watcher::WatchAlarms,
        parameters: Parameters,
        update_delay: Duration,
    ) -> ChainWatcher {
        ChainWatcher {
            client,
            parameters,
            chain: Arc::clone(&self.chain),
            state: Arc::clone(&self.state),
            board: self.board.clone(),
            alarms,
            update_delay,
            shutdown: self.wakeups.shutdown.clone(),
        }
    }

    fn model_sync(&self, saved: TrackerFile, alarm: Alarm, update_delay: Duration) -> ModelSync {
        ModelSync {
            chain: Arc::clone(&self.chain),
            library: Arc::clone(&self.library),
            state: Arc::clone(&self.state),
            saved,
            alarm,
            board: self.board.clone(),
            update_delay,
            wakeups: Arc::clone(&self.wakeups),
        }
    }

    fn prefetch(&self) -> Prefetch {
        Prefetch {
            draws: Arc::clone(&self.draws),
            state: Arc::clone(&self.state),
            shutdown: self.wakeups.shutdown.clone(),
        }
    }

    fn cleaner(&self, alarm: Alarm, grace: Duration) -> Cleaner {
        Cleaner {
            library: Arc::clone(&self.library),
            state: Arc::clone(&self.state),
            alarm,
            grace,
            wakeups: Arc::clone(&self.wakeups),
        }
    }

    fn history(
        &self,
        settings: &Settings,
        hotkey: Hotkey,
        client: Option<Client>,
        records: broadcast::Receiver<Arc<StepRecord>>,
        meters: Meters,
    ) -> History {
        History {
            board: self.board.clone(),
            version: settings.version.clone(),
            hotkey,
            folder: settings.folder.clone(),
            client,
            snapshots: self.chain.snapshots(),
            records,
            meters,
            disk: DiskWatch {
                store: self.library.store.clone(),
                limits: settings.limits,
            },
            site: settings.site.clone(),
            shutdown: self.wakeups.shutdown.clone(),
        }
    }

    fn step_loop(
        &self,
        context: Context,
        (alarm, losses, tokenizer): (Alarm, Alarm, Alarm),
        max_steps: Option<u64>,
        records: broadcast::Sender<Arc<StepRecord>>,
    ) -> StepLoop {
        StepLoop {
            context,
            chain: Arc::clone(&self.chain),
            library: Arc::clone(&self.library),
            draws: Arc::clone(&self.draws),
            alarm,
            losses: Losses::new(losses),
            tokenizers: TokenizerWatch::new(tokenizer),
            max_steps,
            records,
            wakeups: Arc::clone(&self.wakeups),
            memory: Memory::default(),
        }
    }

    fn weights(
        &self,
        client: Client,
        wallet: Arc<Wallet>,
        terms: Terms,
        alarms: weights::Alarms,
        twins: Twins,
        reveals: Reveals,
    ) -> WeightSetter {
        WeightSetter {
            client,
            chain: Arc::clone(&self.chain),
            wallet,
            state: Arc::clone(&self.state),
            terms,
            board: self.board.clone(),
            alarms,
            twins,
            reveals,
            footing: Footing::default(),
            mechanism_update: None,
            shutdown: self.wakeups.shutdown.clone(),
        }
    }
}

//! Start-up, in order: wallet, chain, registration, store, device, state, samples.

use std::sync::Arc;

use shared::{Exit, Failure, term};

use super::{
    Settings, connect,
    gate::Gate,
    observers::{HubMeters, WorkerMeters},
    origin,
};
use crate::{
    hints::{lock_failure, wallet_failure},
    state::{self, Identity, State},
};
use chain::{ChainSnapshot, Client, Wallet, weights::TwinGuard};
use eval::Evaluator;
use hub::Hub;
use model::protocol::Wall;
use models::Store;
use report::{
    Journal,
    board::{Alarms, Board},
    meters::Meters,
    status::Activity,
};
use samples::{Fetcher, Supply};
use subnet::Uid;

/// A journal file is compressed at this size; so many are kept.
const JOURNAL_BYTES: u64 = 16 << 20;
const JOURNAL_FILES: usize = 1000;

/// Everything that had to be there before a task can run.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) wallet: Arc<Wallet>,
    /// No other process of this user validates with our hotkey.
    pub(super) twin: TwinGuard,
    /// `None` without a chain.
    pub(super) client: Option<Client>,
    pub(super) snapshot: ChainSnapshot,
    pub(super) gate: Gate,
    pub(super) uid: Option<Uid>,
    /// Where models come from, and where they lie.
    pub(super) models: (Hub, Store),
    pub(super) evaluator: Arc<Evaluator>,
    /// The devices, as the workers found them.
    pub(super) device: String,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) supply: Arc<Supply>,
}

/// Opens everything, or says what stands in the way.
pub(super) async fn open(
    settings: &Settings,
    board: &Board,
    alarms: &Alarms,
    meters: &Meters,
) -> Result<Opened, Failure> {
    let wallet =
        Wallet::open(&settings.wallet, &settings.passwords).map_err(|e| wallet_failure(&e))?;
    board.note(|details| details.hotkey = Some(wallet.hotkey()));
    let network = settings.endpoints.network.clone();
    progress(board, Activity::Connecting { network });
    let (client, snapshot) = if settings.offline {
        connect::connect_or_load(settings, board, &alarms.chain, &alarms.old_chain_data).await?
    } else {
        let (client, snapshot) = connect::connect(settings, board, &alarms.chain).await?;
        (Some(client), snapshot)
    };
    let twin = TwinGuard::acquire(&wallet, &snapshot).map_err(|e| lock_failure(&e))?;
    let gate = Gate::open(
        &settings.folder,
        &settings.step.parameters.identity,
        wallet.hotkey(),
        settings.offline,
        &snapshot,
    )?;
    let uid = registered(settings, &wallet, &snapshot)?;
    board.note(|details| {
        details.uid = uid;
        details.block = Some(snapshot.block);
    });
    progress(board, Activity::OpeningModels);
    let store = Store::open(&settings.model_folder, settings.limits)
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let hub = Hub::new(settings.hub.clone())
        .map_err(|error| Failure::of(Exit::Config, &error))?
        .observed(Arc::new(HubMeters(meters.clone())));
    progress(board, Activity::StartingWorkers);
    let evaluator = Evaluator::new(settings.workers.clone());
    let observer = WorkerMeters(meters.clone(), board.clone());
    let evaluator = Arc::new(evaluator.observed(Arc::new(observer)));
    let (device, sandbox) = device(&evaluator).await?;
    board.note(|details| {
        details.device = Some(device.clone());
        details.sandbox = Some(sandbox);
    });
    board.activity(Activity::ReadingState);
    let (state, journal) = state(settings, &wallet, &snapshot)?;
    let fetcher = Fetcher::new(settings.samples.clone())
        .map_err(|fault| Failure::new(fault.kind.exit(), fault))?;
    Ok(Opened {
        wallet: Arc::new(wallet),
        twin,
        client,
        snapshot,
        gate,
        uid,
        models: (hub, store),
        evaluator,
        device,
        state,
        journal,
        supply: Arc::new(Supply::new(fetcher, settings.sample_count)),
    })
}

fn progress(board: &Board, activity: Activity) {
    term::note(&activity);
    board.activity(activity);
}

/// Returns our uid; without one there is nothing to validate with, unless offline.
fn registered(
    settings: &Settings,
    wallet: &Wallet,
    snapshot: &ChainSnapshot,
) -> Result<Option<Uid>, Failure> {
    let hotkey = wallet.hotkey();
    match snapshot.neuron(&hotkey) {
        Some(neuron) => Ok(Some(neuron.uid)),
        None if settings.offline => Ok(None),
        None => Err(Failure::new(
            Exit::Config,
            format_args!(
                "hotkey {hotkey} is not registered on subnet {}",
                snapshot.netuid
            ),
        )
        .hint(format_args!(
            "btcli subnet register --netuid {} --wallet.name {} --wallet.hotkey {}",
            snapshot.netuid, settings.wallet.name, settings.wallet.hotkey
        ))),
    }
}

/// Starts the workers and tests them; returns the devices they found, and the walls around them.
async fn device(evaluator: &Evaluator) -> Result<(String, String), Failure> {
    let (mut devices, mut sandbox) = (Vec::new(), String::new());
    for started in evaluator.start().await {
        let fault = match started.hello {
            Err(fault) => fault,
            Ok(hello) => match hello.device {
                Ok(device) => {
                    devices.push(device.id);
                    sandbox = walls(&hello.sandbox);
                    continue;
                }
                Err(fault) => fault,
            },
        };
        return Err(Failure::new(
            Exit::Machine,
            format_args!("no evaluation on device {}", started.device),
        )
        .because(fault)
        .hint("`--device auto` takes the CPU where there is no GPU; `validator check` says more"));
    }
    for (device, tested) in evaluator.self_test().await {
        if let Err(fault) = tested {
            return Err(Failure::new(
                Exit::Machine,
                format_args!("device {device} does not compute as it should"),
            )
            .because(fault));
        }
    }
    Ok((devices.join(","), sandbox))
}

/// Names the walls that stand, then those that don't.
fn walls(walls: &[Wall]) -> String {
    let names = |stand| {
        let those = walls
            .iter()
            .filter(move |wall| wall.stands.is_ok() == stand);
        let names: Vec<&str> = those.map(|wall| wall.name.as_str()).collect();
        names.join(", ")
    };
    match names(false).as_str() {
        "" => names(true),
        missing => format!("{}; without {missing}", names(true)),
    }
}

/// Chooses the state to start from and opens the journal.
fn state(
    settings: &Settings,
    wallet: &Wallet,
    snapshot: &ChainSnapshot,
) -> Result<(State, Journal), Failure> {
    let identity = Identity {
        netuid: settings.step.parameters.netuid,
        hotkey: wallet.hotkey(),
        genesis: snapshot.genesis_hash.to_string(),
    };
    let journal = Journal::open(
        &settings.folder.join("records"),
        JOURNAL_BYTES,
        JOURNAL_FILES,
    )
    .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let last = journal
        .last()
        .map_err(|error| Failure::of(Exit::BadInput, &error))?;
    let saved = state::read(&settings.folder, &identity).map_err(|error| {
        Failure::of(Exit::Config, &error).hint("give this validator its own --state-dir")
    })?;
    let saved = saved.map(|mut saved| {
        // Killed between record and state: the record holds.
        if let Some(record) = last.as_ref().filter(|record| record.step >= saved.step) {
            tracing::info!(
                step = record.step,
                "taking over a step that was recorded last"
            );
            let turn = saved.open.as_ref().map_or(record.block, |open| open.turn);
            saved.absorb(record, turn);
        }
        saved
    });
    let parameters = &settings.step.parameters;
    let (mut state, why) = origin::choose(saved, settings.genesis, identity, snapshot, parameters);
    tracing::info!(
        step = state.step,
        weights_block = state.weights_block,
        "starting {why}"
    );
    term::note(format_args!("starting {why}"));
    state.step = state.step.max(last.map_or(0, |record| record.step + 1));
    follow(&mut state, snapshot);
    Ok((state, journal))
}

fn follow(state: &mut State, snapshot: &ChainSnapshot) {
    let changed = state.follow(&origin::hotkeys(snapshot));
    if !changed.is_empty() {
        tracing::info!(
            ?changed,
            "uids changed hands while we were away: their weights are gone"
        );
    }
}

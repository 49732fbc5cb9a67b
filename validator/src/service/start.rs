//! Start-up, in order: lock, wallet, chain, registration, store, device, state, samples.

use std::{sync::Arc, time::Duration};

use shared::{
    Exit, Failure,
    file::{FileLock, LockError},
    shutdown::Shutdown,
    status::Health,
    term,
};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::timeout,
};

use super::{Parts, Settings, model_sync, origin};
use crate::{
    state::{self, Identity, Kept, State},
    step::{Context, Sign},
};
use chain::{ChainError, ChainSnapshot, Client, Deadlines, Wallet, weights::TwinGuard};
use eval::Evaluator;
use models::{Hub, Store, Sync, SyncOptions, Verifier};
use report::{Board, Journal};
use samples::{Fetcher, Supply};
use subnet::Netuid;

/// The last snapshot, for work without the chain.
pub(super) const SNAPSHOT: &str = "snapshot.json";

/// How long an offline start looks for a chain before it takes the snapshot on disk.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(15);

/// A journal file is compressed at this size; so many are kept.
const JOURNAL_BYTES: u64 = 16 << 20;
const JOURNAL_FILES: usize = 1000;

/// Builds the parts, or says what stands in the way.
pub(super) async fn build(settings: Settings, shutdown: Shutdown) -> Result<Parts, Failure> {
    let board = Arc::new(Board::default());
    let lock = FileLock::try_acquire(&settings.folder.join("lock"), "validator").map_err(held)?;
    let wallet = open_wallet(&settings)?;
    let (client, snapshot) = chain(&settings, &board).await?;
    let twin = TwinGuard::acquire(&wallet, &snapshot).map_err(held)?;
    let uid = registered(&settings, &wallet, &snapshot)?;
    progress(&board, "opening the models");
    let store = Store::open(&settings.model_folder, settings.limits)
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let hub = Hub::new(settings.hub.clone()).map_err(|error| Failure::of(Exit::Config, &error))?;
    progress(&board, "starting the evaluation");
    let evaluator = Evaluator::new(settings.workers.clone());
    let device = device(&evaluator).await?;
    let (kept, journal) = state(&settings, &wallet, &snapshot)?;
    let sync = Sync::new(
        Verifier {
            hub: hub.clone(),
            store: Some(store.clone()),
        },
        settings.step.parameters.clone(),
        SyncOptions {
            update_delay: settings.update_delay,
            grace: settings.grace,
            min_block: kept.look(|state| state.news_from),
            dtype: settings.step.dtype,
        },
        model_sync::load(&settings.folder)?,
    );
    let fetcher = Fetcher::new(settings.samples.clone())
        .map_err(|fault| Failure::new(fault.kind.exit(), fault))?;
    board.fact("uid", uid.map(|uid| uid.0));
    board.fact("hotkey", wallet.hotkey().to_string());
    board.fact("netuid", settings.step.parameters.netuid.0);
    board.fact("device", device.clone());
    let wallet = Arc::new(wallet);
    let signer = Arc::clone(&wallet);
    let sign: Sign = Arc::new(move |bytes| signer.sign(bytes));
    let head = watch::Sender::new(snapshot.block);
    let snapshots = watch::Sender::new(Arc::new(snapshot));
    let context = Context {
        settings: settings.step.clone(),
        version: settings.version.clone(),
        hotkey: wallet.hotkey(),
        sign,
        device,
        evaluator,
        supply: Supply::new(fetcher, settings.sample_count),
        sample_folder: settings.folder.join("samples"),
        state: kept,
        journal,
        board,
        snapshots: snapshots.subscribe(),
    };
    Ok(Parts {
        settings,
        context,
        client,
        snapshots,
        head,
        sync,
        store,
        hub,
        wallet,
        news: Notify::new(),
        completed: Notify::new(),
        syncing: watch::Sender::new(true),
        shutdown,
        _lock: lock,
        twin: Mutex::new(twin),
    })
}

fn progress(board: &Board, phase: &str) {
    board.phase(phase);
    term::note(phase);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it maps the error of a result"
)]
fn held(error: LockError) -> Failure {
    match &error {
        LockError::Held { .. } => Failure::of(Exit::Denied, &error)
            .hint("another validator runs with this hotkey or state; stop it first"),
        LockError::File(_) => Failure::of(Exit::Machine, &error),
    }
}

fn open_wallet(settings: &Settings) -> Result<Wallet, Failure> {
    Wallet::open(&settings.wallet, &settings.passwords).map_err(|error| {
        Failure::of(Exit::Config, &error).hint(
            "name it with --wallet.name and --wallet.hotkey; without a wallet, try `localnet`",
        )
    })
}

/// Connects and takes the first snapshot. Offline, the one on disk will do.
async fn chain(
    settings: &Settings,
    board: &Board,
) -> Result<(Option<Client>, ChainSnapshot), Failure> {
    progress(
        board,
        &format!("connecting to {}", settings.endpoints.network),
    );
    let netuid = settings.step.parameters.netuid;
    let path = settings.folder.join(SNAPSHOT);
    let connected = connect(settings, netuid);
    let error = if settings.offline {
        match timeout(OFFLINE_PATIENCE, connected).await {
            Ok(Ok((client, snapshot))) => return Ok((Some(client), snapshot)),
            Ok(Err(error)) => Failure::of(Exit::TryLater, &error),
            Err(_) => Failure::new(Exit::TryLater, "no chain endpoint answered in time"),
        }
    } else {
        match connected.await {
            Ok((client, snapshot)) => {
                if let Err(error) = snapshot.save(&path) {
                    tracing::warn!(%error, "could not keep the snapshot for offline work");
                }
                return Ok((Some(client), snapshot));
            }
            Err(error) => {
                return Err(Failure::of(error.kind().exit(), &error)
                    .hint("check --subtensor.network or --subtensor.chain_endpoint"));
            }
        }
    };
    let kept = ChainSnapshot::load(&path).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let Some(snapshot) = kept.filter(|snapshot| snapshot.netuid == netuid) else {
        return Err(error.hint("--offline needs a chain, or a snapshot of an earlier run on disk"));
    };
    let hours = snapshot.age().as_secs() / 3600;
    tracing::warn!(
        block = snapshot.block,
        hours,
        "no chain: working from the snapshot on disk"
    );
    board.problem(
        "chain",
        Health::Yellow,
        format_args!("offline: the chain data is {hours} hours old"),
    );
    Ok((None, snapshot))
}

async fn connect(
    settings: &Settings,
    netuid: Netuid,
) -> Result<(Client, ChainSnapshot), ChainError> {
    let client = Client::connect(&settings.endpoints, Deadlines::default()).await?;
    let snapshot = client.snapshot(netuid).await?;
    Ok((client, snapshot))
}

/// Returns our uid; without one there is nothing to validate with, unless offline.
fn registered(
    settings: &Settings,
    wallet: &Wallet,
    snapshot: &ChainSnapshot,
) -> Result<Option<subnet::Uid>, Failure> {
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

/// Starts the workers and tests them; returns the devices they found.
async fn device(evaluator: &Evaluator) -> Result<String, Failure> {
    let mut devices = Vec::new();
    for started in evaluator.start().await {
        let fault = match started.hello {
            Err(fault) => fault,
            Ok(hello) => match hello.device {
                Ok(device) => {
                    devices.push(device.id);
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
    Ok(devices.join(","))
}

/// Chooses the state to start from and opens the journal.
fn state(
    settings: &Settings,
    wallet: &Wallet,
    snapshot: &ChainSnapshot,
) -> Result<(Kept, Journal), Failure> {
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
    let kept =
        Kept::new(&settings.folder, state).map_err(|error| Failure::of(Exit::Machine, &error))?;
    Ok((kept, journal))
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

//! The first contact with the chain: tries, told on the board as they fail; offline, the snapshot
//! on disk will do.

use std::time::Duration;

use shared::{Exit, Failure, status::Health};
use tokio::{sync::watch, time::timeout};

use super::{Settings, chain_view};
use crate::hints::chain_failure;
use chain::{Attempts, ChainError, ChainSnapshot, Client, Deadlines};
use report::board::{Alarm, Board};

/// How long an offline start looks for a chain before it takes the snapshot on disk.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(15);

/// Connects and takes the first snapshot.
pub(super) async fn connect(
    settings: &Settings,
    board: &Board,
    alarm: &Alarm,
) -> Result<(Client, ChainSnapshot), Failure> {
    let connected = tell(board, alarm, |attempts| reach(settings, attempts)).await;
    connected.map_err(|error| chain_failure(&error))
}

/// Connects as well, but takes the snapshot on disk where no chain answers.
pub(super) async fn connect_or_load(
    settings: &Settings,
    board: &Board,
    alarm: &Alarm,
    old_data: &Alarm,
) -> Result<(Option<Client>, ChainSnapshot), Failure> {
    let connected = timeout(OFFLINE_PATIENCE, connect(settings, board, alarm)).await;
    let failure = match connected {
        Ok(Ok((client, snapshot))) => return Ok((Some(client), snapshot)),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(Exit::TryLater, "no chain endpoint answered in time"),
    };
    let kept = ChainSnapshot::load(&chain_view::file(&settings.folder))
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let netuid = settings.step.parameters.netuid;
    let Some(snapshot) = kept.filter(|snapshot| snapshot.netuid == netuid) else {
        return Err(
            failure.hint("--offline needs a chain, or a snapshot of an earlier run on disk")
        );
    };
    let hours = snapshot.age().as_secs() / 3600;
    tracing::warn!(
        block = snapshot.block,
        hours,
        "no chain: working from the snapshot on disk"
    );
    // Nobody waits for the chain any more; what is wrong from now on is the age of the data.
    alarm.end();
    old_data.raise(
        Health::Yellow,
        format_args!("offline: the chain data is {hours} hours old"),
    );
    Ok((None, snapshot))
}

async fn reach(
    settings: &Settings,
    attempts: watch::Sender<Attempts>,
) -> Result<(Client, ChainSnapshot), ChainError> {
    let (endpoints, deadlines) = (&settings.endpoints, Deadlines::default());
    let client = Client::connect_telling(endpoints, deadlines, attempts).await?;
    let parameters = &settings.step.parameters;
    let snapshot = client
        .snapshot_by(parameters.netuid, &parameters.commitment)
        .await?;
    Ok((client, snapshot))
}

/// Waits for the chain, and says on the board how that is going.
async fn tell<T, F>(
    board: &Board,
    alarm: &Alarm,
    reach: impl FnOnce(watch::Sender<Attempts>) -> F,
) -> Result<T, ChainError>
where
    F: Future<Output = Result<T, ChainError>>,
{
    let attempts = watch::Sender::new(Attempts::default());
    let mut failures = attempts.subscribe();
    let reached = reach(attempts);
    tokio::pin!(reached);
    loop {
        tokio::select! {
            reached = &mut reached => {
                if reached.is_ok() {
                    alarm.end();
                }
                return reached;
            }
            Ok(()) = failures.changed() => {
                let Attempts { failed, last_error } = failures.borrow_and_update().clone();
                let error = last_error.unwrap_or_default();
                alarm.raise(
                    Health::Yellow,
                    format_args!("chain: {failed} tries failed, the last: {error}"),
                );
                board.note(|details| {
                    details.start.failed_connections = failed;
                    details.start.last_error = Some(error);
                });
            }
        }
    }
}

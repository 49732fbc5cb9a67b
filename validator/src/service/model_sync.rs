//! Model sync: keeps store and tracker up with the commitments, and wakes the step loop.

use std::{path::Path, sync::Arc, time::Duration};

use shared::{Exit, Failure, file, status::Health};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::Parts;
use chain::{ChainSnapshot, RawCommitment};
use models::{Tracker, sync::Event, tracker::Outcome};
use subnet::Commitment;

/// Where the tracker is kept, in the folder of the state.
const TRACKER: &str = "tracker.json";
const MAX_BYTES: u64 = 64 << 20;

/// Events that may wait for the evaluation; a full queue holds downloads back.
const QUEUE: usize = 8;

/// What waits for a better time is looked at this often.
const RETRY_EVERY: Duration = Duration::from_secs(30);

pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    let mut snapshots = parts.snapshots.subscribe();
    let (sender, mut events) = mpsc::channel(QUEUE);
    loop {
        let snapshot = parts.snapshot();
        snapshots.mark_unchanged();
        let commitments = commitments(&snapshot);
        parts.syncing.send_replace(true);
        let round = async {
            if parts
                .sync
                .round(&commitments, snapshot.block, &sender)
                .await
                .is_err()
            {
                return;
            }
            for commitment in needed(&parts, &commitments) {
                if let Some(event) = parts.sync.look_now(commitment, snapshot.block).await {
                    note(&parts, &event);
                }
            }
        };
        tokio::pin!(round);
        loop {
            tokio::select! {
                () = parts.shutdown.requested() => return save(&parts),
                () = &mut round => break,
                Some(event) = events.recv() => note(&parts, &event),
            }
        }
        while let Ok(event) = events.try_recv() {
            note(&parts, &event);
        }
        publish(&parts);
        if parts.syncing.send_replace(false) {
            parts.news.notify_one();
        }
        let retry = Instant::now() + RETRY_EVERY;
        tokio::select! {
            () = parts.shutdown.requested() => return save(&parts),
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return save(&parts);
                }
            }
            () = sleep_until(retry) => {}
        }
    }
}

/// Returns the commitments that name a model.
pub(super) fn commitments(snapshot: &ChainSnapshot) -> Vec<Commitment> {
    snapshot
        .commitments
        .iter()
        .filter_map(RawCommitment::commitment)
        .collect()
}

/// Returns the commitments of pools whose models are not on disk: too old to be news, or removed.
fn needed<'c>(parts: &Parts, commitments: &'c [Commitment]) -> Vec<&'c Commitment> {
    let state = parts.context.state.get();
    let tracker = parts.sync.tracker();
    let now = shared::clock::now();
    let missing = |commitment: &&Commitment| {
        let pooled = state
            .pools
            .values()
            .any(|pool| pool.get(&commitment.uid) == Some(&commitment.hotkey));
        if !pooled {
            return false;
        }
        match tracker.get(&commitment.hotkey).map(|entry| &entry.outcome) {
            Some(Outcome::Verified { content_hash, .. }) => {
                matches!(parts.store.model(content_hash), Ok(None))
            }
            _ => tracker.is_due(commitment, now, parts.settings.update_delay),
        }
    };
    commitments.iter().filter(missing).collect()
}

fn note(parts: &Parts, event: &Event) {
    if let Event::Retry { fault, .. } = event
        && fault.kind != subnet::FaultKind::Model
    {
        parts.fault("models", fault, 0);
    }
    if let Err(failure) = save(parts) {
        tracing::error!(%failure, "could not keep the tracker");
        parts
            .context
            .board
            .problem("tracker", Health::Yellow, &failure);
    } else {
        parts.context.board.well("tracker");
    }
    parts.news.notify_one();
}

fn publish(parts: &Parts) {
    let tracker = parts.sync.tracker();
    let count = |wanted: fn(&Outcome) -> bool| {
        tracker
            .entries()
            .values()
            .filter(|entry| wanted(&entry.outcome))
            .count()
    };
    if tracker.faults() == 0 {
        parts.context.board.well("models");
    }
    parts.context.board.fact(
        "models",
        serde_json::json!({
            "verified": count(|outcome| matches!(outcome, Outcome::Verified { .. })),
            "refused": count(|outcome| matches!(outcome, Outcome::Refused { .. })),
            "waiting": count(|outcome| matches!(outcome, Outcome::Waiting { .. })),
        }),
    );
}

fn save(parts: &Parts) -> Result<(), Failure> {
    let path = parts.settings.folder.join(TRACKER);
    let bytes = serde_json::to_vec(&parts.sync.tracker())
        .map_err(|error| Failure::of(Exit::Bug, &error))?;
    file::write_atomic(&path, &bytes).map_err(|error| Failure::of(Exit::Machine, &error))
}

/// Reads the tracker; a damaged one is begun anew, which costs requests and no model.
pub(super) fn load(folder: &Path) -> Result<Tracker, Failure> {
    let path = folder.join(TRACKER);
    let bytes =
        file::read_limited(&path, MAX_BYTES).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let Some(bytes) = bytes else {
        return Ok(Tracker::default());
    };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "the tracker is damaged: every commitment is looked at again");
        Tracker::default()
    }))
}

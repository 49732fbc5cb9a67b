//! The cleaner: after steps and now and then, removes models that nobody has needed for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::ContentHash;
use shared::{Failure, status::Health};
use tokio::time::sleep;

use super::Parts;
use models::{cleaner, tracker::Outcome};

/// At least this often.
const EVERY: Duration = Duration::from_secs(600);

pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            () = sleep(EVERY) => {}
            () = parts.completed.notified() => {}
        }
        sweep(&parts).await;
    }
}

async fn sweep(parts: &Parts) {
    let (store, tracker) = (parts.store.clone(), parts.sync.tracker());
    let evaluated = evaluated(parts);
    let grace = parts.settings.grace;
    let swept =
        tokio::task::spawn_blocking(move || cleaner::sweep(&store, &tracker, &evaluated, grace));
    let board = &parts.context.board;
    match swept.await {
        Ok(Ok(_)) => board.well("store"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "could not clean up the models");
            board.problem("store", Health::Yellow, format_args!("models: {error}"));
        }
        Err(panic) => tracing::error!(%panic, "cleaning up the models failed"),
    }
}

/// Returns the models of the pools with their uids' share of the weights.
fn evaluated(parts: &Parts) -> BTreeMap<ContentHash, f64> {
    let tracker = parts.sync.tracker();
    parts.context.state.look(|state| {
        let members = state.pools.values().flatten();
        members
            .filter_map(|(uid, hotkey)| match tracker.get(hotkey)?.outcome {
                Outcome::Verified { content_hash, .. } => {
                    Some((content_hash, f64::from(state.weights.get(*uid))))
                }
                _ => None,
            })
            .collect()
    })
}

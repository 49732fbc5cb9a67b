//! The chain watcher: every new block, and a fresh snapshot when one is due.

use std::{sync::Arc, time::Duration};

use shared::{Failure, status::Health};
use tokio::time::{Instant, sleep};

use super::Parts;
use chain::ChainError;
use subnet::BlockNumber;

/// A snapshot is taken at least every so many blocks.
const SNAPSHOT_BLOCKS: u64 = 25;

/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    let Some(client) = &parts.client else {
        parts.shutdown.requested().await;
        return Ok(());
    };
    let board = &parts.context.board;
    let mut blocks = client.blocks();
    let mut pause = FIRST_PAUSE;
    let mut taken = Instant::now();
    loop {
        let seen = tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            seen = blocks.next() => seen,
        };
        let outcome = match seen {
            Ok(block) => {
                parts.head.send_replace(block);
                stay_alive(&parts, block);
                board.fact("block", block);
                let behind = block.saturating_sub(parts.snapshot().block);
                let due =
                    behind >= SNAPSHOT_BLOCKS || taken.elapsed() >= parts.settings.update_delay;
                if due && behind > 0 {
                    taken = Instant::now();
                    snapshot(&parts).await
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the chain is away");
            board.problem("chain", Health::Yellow, format_args!("chain: {error}"));
            tokio::select! {
                () = parts.shutdown.requested() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            board.well("chain");
            pause = FIRST_PAUSE;
        }
    }
}

/// Notes that we are alive, four times a tempo: a restart within it goes on from the state.
fn stay_alive(parts: &Parts, block: BlockNumber) {
    let quarter = u64::from(parts.snapshot().hyperparameters.tempo) / 4;
    let context = &parts.context;
    if block >= context.state.look(|state| state.alive_at) + quarter.max(1)
        && let Err(fault) = context.update(|state| state.alive_at = block)
    {
        tracing::warn!(%fault, "could not write the state");
        context.board.problem("state", Health::Yellow, fault);
    } else {
        context.board.well("state");
    }
}

/// Takes a snapshot and publishes it.
pub(super) async fn snapshot(parts: &Parts) -> Result<(), ChainError> {
    let Some(client) = &parts.client else {
        return Ok(());
    };
    let snapshot = client
        .snapshot(parts.context.settings.parameters.netuid)
        .await?;
    if let Err(error) = snapshot.save(&parts.settings.folder.join(super::start::SNAPSHOT)) {
        tracing::warn!(%error, "could not keep the snapshot for offline work");
    }
    parts.head.send_if_modified(|head| {
        let newer = snapshot.block > *head;
        *head = snapshot.block.max(*head);
        newer
    });
    parts.snapshots.send_replace(Arc::new(snapshot));
    Ok(())
}

//! The samples of the next step: which they are, and a task that fetches them ahead.

use std::sync::Arc;

use shared::Failure;

use super::Parts;
use samples::{Order, Seed, sample_set};
use subnet::{BlockNumber, Fault};

/// Fetches the next step's samples while the current one computes: one set ahead for each that a
/// step takes. With `--seed block` that can't be before the block whose hash is the seed.
pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    tokio::select! {
        () = parts.shutdown.requested() => {}
        () = prefetch(&parts) => {}
    }
    Ok(())
}

async fn prefetch(parts: &Parts) {
    let supply = &parts.context.supply;
    let mut head = parts.head.subscribe();
    let mut taken = supply.taken();
    let mut last = None;
    loop {
        let mut turn = turn_at(parts, *head.borrow_and_update());
        while seeded_by_block(parts) && last == Some(turn) {
            if head.changed().await.is_err() {
                return;
            }
            turn = turn_at(parts, *head.borrow_and_update());
        }
        last = Some(turn);
        let step = next_step(parts, *taken.borrow_and_update());
        match order(parts, step, turn).await {
            Ok(order) => supply.prepare(order).await,
            Err(fault) => tracing::debug!(%fault, "no seed for the next step's samples yet"),
        }
        if taken.changed().await.is_err() {
            return;
        }
    }
}

/// Returns the number of the step after the one that took its samples last.
fn next_step(parts: &Parts, taken: Option<Order>) -> u64 {
    match (parts.context.settings.seed, taken) {
        // The state does not know yet what was taken, but the seed tells.
        (Seed::Fixed(seed), Some(order)) => order.seed.wrapping_sub(seed).wrapping_add(1),
        _ => parts.context.state.look(|state| state.step),
    }
}

/// Returns the block at which a competition's samples change: at most one step is made on each
/// without news.
pub(super) fn turn_at(parts: &Parts, head: BlockNumber) -> BlockNumber {
    match parts.context.settings.seed {
        Seed::Block => sample_set::sync_block(head, parts.context.settings.sync_blocks),
        Seed::Random | Seed::Fixed(_) => head,
    }
}

/// Returns which samples a step of this turn is to have.
pub(super) async fn order(parts: &Parts, step: u64, turn: BlockNumber) -> Result<Order, Fault> {
    let settings = &parts.context.settings;
    match (settings.seed, &parts.client) {
        (Seed::Fixed(seed), _) => Ok(Order {
            seed: seed.wrapping_add(step),
            block: None,
        }),
        (Seed::Random, _) | (Seed::Block, None) => Ok(parts.context.supply.random_order()),
        (Seed::Block, Some(client)) => {
            let hash = client.block_hash(turn).await?;
            Ok(Order {
                seed: sample_set::block_seed(&hash, settings.parameters.netuid),
                block: Some(turn),
            })
        }
    }
}

fn seeded_by_block(parts: &Parts) -> bool {
    parts.context.settings.seed == Seed::Block && parts.client.is_some()
}

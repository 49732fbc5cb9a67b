//! The samples of the next step: which they are, and a task that fetches them ahead.

use std::sync::Arc;

use shared::{Failure, shutdown::Shutdown};

use super::chain_view::ChainView;
use crate::{state::Kept, step};
use samples::{Order, Seed, Supply, sample_set};
use subnet::{BlockNumber, Fault};

/// Decides which samples a step is to have.
#[derive(Debug)]
pub(super) struct Draws {
    seed: Seed,
    /// Blocks over which the block seed stays the same.
    sync_blocks: u64,
    chain: Arc<ChainView>,
    supply: Arc<Supply>,
}

impl Draws {
    pub(super) fn new(
        settings: &step::Settings,
        chain: &Arc<ChainView>,
        supply: &Arc<Supply>,
    ) -> Self {
        Self {
            seed: settings.seed,
            sync_blocks: settings.sync_blocks,
            chain: Arc::clone(chain),
            supply: Arc::clone(supply),
        }
    }

    /// Returns the block at which a competition's samples change: at most one step is made on each
    /// without news.
    pub(super) fn turn_at(&self, head: BlockNumber) -> BlockNumber {
        match self.seed {
            Seed::Block => sample_set::sync_block(head, self.sync_blocks),
            Seed::Random | Seed::Fixed(_) => head,
        }
    }

    /// Returns which samples a step of this turn is to have.
    pub(super) async fn order(&self, step: u64, turn: BlockNumber) -> Result<Order, Fault> {
        match (self.seed, self.chain.client()) {
            (Seed::Fixed(seed), _) => Ok(Order {
                seed: seed.wrapping_add(step),
                block: None,
            }),
            (Seed::Random, _) | (Seed::Block, None) => Ok(self.supply.random_order()),
            (Seed::Block, Some(client)) => {
                let hash = client.block_hash(turn).await?;
                Ok(Order {
                    seed: sample_set::block_seed(&hash, self.chain.netuid()),
                    block: Some(turn),
                })
            }
        }
    }

    fn seeded_by_block(&self) -> bool {
        self.seed == Seed::Block && self.chain.client().is_some()
    }
}

/// Fetches the next step's samples while the current one computes: one set ahead for each that a
/// step takes. With `--seed block` that can't be before the block whose hash is the seed.
#[derive(Debug)]
pub(super) struct Prefetch {
    pub(super) draws: Arc<Draws>,
    pub(super) state: Arc<Kept>,
    pub(super) shutdown: Shutdown,
}

impl Prefetch {
    pub(super) async fn run(self) -> Result<(), Failure> {
        tokio::select! {
            () = self.shutdown.requested() => {}
            () = self.prefetch() => {}
        }
        Ok(())
    }

    async fn prefetch(&self) {
        let draws = &self.draws;
        let mut head = draws.chain.heads();
        let mut taken = draws.supply.taken();
        let mut last = None;
        loop {
            let mut turn = draws.turn_at(*head.borrow_and_update());
            while draws.seeded_by_block() && last == Some(turn) {
                if head.changed().await.is_err() {
                    return;
                }
                turn = draws.turn_at(*head.borrow_and_update());
            }
            last = Some(turn);
            let step = self.next_step(*taken.borrow_and_update());
            match draws.order(step, turn).await {
                Ok(order) => draws.supply.prepare(order).await,
                Err(fault) => tracing::debug!(%fault, "no seed for the next step's samples yet"),
            }
            if taken.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the number of the step after the one that took its samples last.
    fn next_step(&self, taken: Option<Order>) -> u64 {
        match (self.draws.seed, taken) {
            // The state does not know yet what was taken, but the seed tells.
            (Seed::Fixed(seed), Some(order)) => order.seed.wrapping_sub(seed).wrapping_add(1),
            _ => self.state.look(|state| state.step),
        }
    }
}

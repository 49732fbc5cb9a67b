//! The ledger as a running node has it: shared, watched, and making blocks in its mode.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sp_core::H256;
use sp_runtime::{DispatchError, traits::Header as _};
use tokio::sync::watch;

use super::{
    changes::Change,
    faults::ChainFaults,
    ledger::{Block, Ledger},
    pool::Rejected,
    state::Trapped,
};

/// When blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockMode {
    /// One for each extrinsic taken into the pool, at once.
    OnDemand,
    /// One each time this much wall clock has passed.
    Every(Duration),
    /// Only when asked for.
    Manual,
}

#[derive(Debug)]
pub(super) struct Node {
    /// One for all nodes of a chain, as are mode and changes.
    ledger: Arc<Mutex<Ledger>>,
    pub(super) faults: ChainFaults,
    pub(super) mode: watch::Sender<BlockMode>,
    /// Counts the changes of heads and pool.
    changes: watch::Sender<u64>,
    /// Blocks by which this node is behind.
    lag: AtomicU32,
}

impl Node {
    pub(super) fn new(ledger: Ledger, mode: BlockMode) -> Self {
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            faults: ChainFaults::default(),
            mode: watch::Sender::new(mode),
            changes: watch::Sender::default(),
            lag: AtomicU32::new(0),
        }
    }

    /// Returns a second node of the same chain, with faults and lag of its own.
    pub(super) fn second(&self) -> Self {
        Self {
            ledger: Arc::clone(&self.ledger),
            faults: ChainFaults::default(),
            mode: self.mode.clone(),
            changes: self.changes.clone(),
            lag: AtomicU32::new(0),
        }
    }

    /// Makes the node know nothing of the newest blocks.
    pub(super) fn set_lag(&self, blocks: u32) {
        self.lag.store(blocks, Ordering::Relaxed);
        self.changed();
    }

    /// Returns the number of the newest block that this node knows.
    pub(super) fn top(&self, ledger: &Ledger) -> u32 {
        let lag = self.lag.load(Ordering::Relaxed);
        ledger.best_number().saturating_sub(lag)
    }

    /// Returns a block by its number, if this node knows it.
    pub(super) fn block<'l>(&self, ledger: &'l Ledger, number: u32) -> Option<&'l Block> {
        (number <= self.top(ledger))
            .then(|| ledger.block(number))
            .flatten()
    }

    /// Returns a block by its hash, or the newest, if this node knows it.
    pub(super) fn block_of<'l>(&self, ledger: &'l Ledger, hash: Option<H256>) -> Option<&'l Block> {
        match hash {
            None => self.block(ledger, self.top(ledger)),
            Some(hash) => {
                let block = ledger.block_by_hash(hash)?;
                self.block(ledger, *block.header.number())
            }
        }
    }

    /// Takes the newest blocks back, with all that was in them, and makes one more than that.
    pub(super) fn fork(&self, depth: u32) -> Result<(), Trapped> {
        self.ledger().fork(depth)?;
        self.changed();
        Ok(())
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what tells of each new head and each change of the pool.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        changes
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes one block with these changes in it.
    pub(super) fn produce(
        &self,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<u16, DispatchError>>, Trapped> {
        let outcomes = self.ledger().produce(changes)?;
        self.changed();
        Ok(outcomes)
    }

    /// Takes an extrinsic, and on demand puts it into a block.
    pub(super) fn submit(&self, bytes: &[u8]) -> Result<H256, Rejected> {
        if let Some(code) = self.faults.note_submission() {
            return Err(Rejected::custom(code));
        }
        let mut ledger = self.ledger();
        let hash = ledger.submit(bytes)?;
        if *self.mode.borrow() == BlockMode::OnDemand
            && let Err(error) = ledger.produce(Vec::new())
        {
            tracing::error!(%error, "no block");
        }
        drop(ledger);
        self.changed();
        Ok(hash)
    }

    /// Makes the finalized head stay this many blocks behind the best.
    pub(super) fn set_finality_lag(&self, blocks: u32) {
        self.ledger().set_finality_lag(blocks);
        self.changed();
    }

    /// Makes blocks by the clock while the mode says so.
    pub(super) async fn tick(&self) {
        let mut mode = self.mode.subscribe();
        loop {
            let current = *mode.borrow_and_update();
            let BlockMode::Every(time) = current else {
                if mode.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(time) => {
                    if let Err(error) = self.produce(Vec::new()) {
                        tracing::error!(%error, "no block");
                    }
                }
                changed = mode.changed() => if changed.is_err() { return },
            }
        }
    }
}

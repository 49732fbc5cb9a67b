//! The weights task: sets the weights of the last complete step when they are due, by blocks.
//!
//! It depends on nothing that a bad day takes away from this machine: what goes out is in memory,
//! and what is written to the disk (who owns which uid, the receipt) is for the next start.

mod clock;
pub(super) mod footing;
pub(super) mod watch;

use std::{sync::Arc, time::Duration};

use shared::{Failure, causes, shutdown::Shutdown, status::Health};

use self::clock::Clock;
use self::{
    footing::Footing,
    watch::{Reveals, Twins},
};
use super::{chain_view::ChainView, origin};
use crate::state::Kept;
use chain::{
    ChainSnapshot, Client, Neuron, Wallet,
    weights::{self, Emitted, Refusal, SetWeightsError, WeightsReceipt, WeightsRequest},
};
use report::{
    board::{Alarm, Board, Hold},
    step_record::Receipt,
};
use subnet::{BlockNumber, Parameters, Uid};

/// What every set of weights says the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Blocks between two sets.
    pub(super) epoch: u64,
    /// The version that the chain asks validators for.
    pub(super) version_key: u64,
    /// The mechanism of the subnet they are for.
    pub(super) mechanism: u8,
}

impl Terms {
    pub(super) const fn of(parameters: &Parameters) -> Self {
        Self {
            epoch: parameters.blocks_per_epoch,
            version_key: parameters.weights_version,
            mechanism: parameters.mechanism,
        }
    }
}

#[derive(Debug)]
pub(super) struct WeightSetter {
    pub(super) client: Client,
    pub(super) chain: Arc<ChainView>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) state: Arc<Kept>,
    pub(super) terms: Terms,
    pub(super) board: Board,
    pub(super) alarms: Alarms,
    pub(super) twins: Twins,
    pub(super) reveals: Reveals,
    pub(super) footing: Footing,
    /// Of a mechanism beyond the first: block of a look, and that of our last weights then.
    pub(super) mechanism_update: Option<(BlockNumber, BlockNumber)>,
    pub(super) shutdown: Shutdown,
}

/// What the task itself may find wrong.
#[derive(Debug)]
pub(super) struct Alarms {
    /// Weights could not be set.
    pub(super) not_set: Alarm,
    pub(super) overdue: Alarm,
}

impl WeightSetter {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut heads = self.chain.heads();
        let mut clock = Clock::default();
        loop {
            let head = *heads.borrow_and_update();
            let snapshot = self.look(&mut clock, head).await;
            self.show(&snapshot, &clock, head);
            let forbidden = self.chain.hindrance().is_some();
            if clock.is_due(head) && self.has_opinion() && !forbidden {
                if let Some(receipt) = self.set(&snapshot, &mut clock, head).await {
                    self.footing.add(&receipt);
                    self.reveals.add(receipt);
                }
                self.show(&snapshot, &clock, self.chain.head());
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                changed = heads.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Looks at what the chain knows of our weights; returns the snapshot that says so.
    async fn look(&mut self, clock: &mut Clock, head: BlockNumber) -> Arc<ChainSnapshot> {
        if self.footing.is_lost(&self.client, head).await {
            // Without the block, what the chain knows of our weights is what it knew before.
            *clock = Clock::default();
            if let Err(error) = self.chain.refresh().await {
                tracing::warn!(%error, "could not look at the chain after a fork");
            }
        }
        let snapshot = self.chain.snapshot();
        let interval = self.interval(&snapshot);
        let neuron = self.neuron(&snapshot).await;
        if let Some(neuron) = &neuron {
            clock.follow(neuron.last_update, interval);
            if snapshot.hyperparameters.commit_reveal {
                clock.spread(
                    snapshot.hyperparameters.tempo.into(),
                    interval,
                    snapshot.next_epoch,
                );
            }
        }
        let (client, wallet) = (&self.client, &self.wallet);
        let block = snapshot.block;
        self.twins
            .look(client, wallet, neuron.as_ref(), block, interval)
            .await;
        self.reveals.look(&self.client, head).await;
        snapshot
    }

    /// Returns our neuron, with the block at which it last set weights of our mechanism.
    async fn neuron(&mut self, snapshot: &ChainSnapshot) -> Option<Neuron> {
        let mut neuron = snapshot.neuron(&self.wallet.hotkey())?.clone();
        let mechanism = self.terms.mechanism;
        if mechanism == 0 {
            return Some(neuron);
        }
        if self
            .mechanism_update
            .is_none_or(|(block, _)| block < snapshot.block)
        {
            let last = self
                .client
                .last_weights(snapshot.netuid, mechanism, neuron.uid);
            match last.await {
                Ok(last) => self.mechanism_update = Some((snapshot.block, last)),
                Err(error) => tracing::warn!(%error, mechanism, "could not look at our weights"),
            }
        }
        neuron.last_update = self.mechanism_update?.1;
        Some(neuron)
    }

    /// Returns the blocks between two sets: ours, or the chain's if that is longer.
    fn interval(&self, snapshot: &ChainSnapshot) -> u64 {
        let limit = snapshot.hyperparameters.weights_rate_limit;
        self.terms.epoch.max(limit)
    }

    /// Returns whether there is anything of our own to say.
    fn has_opinion(&self) -> bool {
        self.state
            .look(|state| state.steps_done > 0 && !state.weights.is_zero())
    }

    /// Sets the weights; returns the receipt if the chain took them.
    async fn set(
        &self,
        snapshot: &ChainSnapshot,
        clock: &mut Clock,
        head: BlockNumber,
    ) -> Option<WeightsReceipt> {
        let request = WeightsRequest {
            netuid: snapshot.netuid,
            mechanism: self.terms.mechanism,
            weights: self.emitted(snapshot)?,
            version_key: self.terms.version_key,
            window: window(self.terms.epoch, snapshot.hyperparameters.block_millis),
        };
        let until = shared::clock::unix_seconds() + request.window.as_secs();
        self.board
            .hold(Hold::SettingWeights, "weights are being set", Some(until));
        let outcome = weights::set(&self.client, &self.wallet, &request).await;
        self.board.release(Hold::SettingWeights);
        match outcome {
            Ok(receipt) => {
                tracing::info!(
                    block = receipt.block,
                    extrinsic = receipt.extrinsic_hash,
                    "weights set"
                );
                clock.succeeded(receipt.block, self.interval(snapshot));
                let kept = kept(&receipt);
                self.board
                    .note(|details| details.receipt = Some(kept.clone()));
                if let Err(error) = self.state.update(|state| state.receipt = Some(kept)) {
                    let error = causes::one_line(&error);
                    tracing::warn!(error, "could not keep the receipt");
                }
                Some(receipt)
            }
            Err(error) => {
                clock.failed(head, wait(&error));
                let error = causes::one_line(&error);
                tracing::warn!(
                    error,
                    times = clock.failed,
                    next = clock.not_before,
                    "weights not set"
                );
                self.alarms
                    .not_set
                    .raise(Health::Yellow, format_args!("weights not set: {error}"));
                None
            }
        }
    }

    /// Returns the weights for the chain; `None` while there is nothing to say. A uid that changed
    /// hands since the last step gets nothing, whether or not that can be written down.
    fn emitted(&self, snapshot: &ChainSnapshot) -> Option<Emitted> {
        let hotkeys = origin::hotkeys(snapshot);
        let mut state = self.state.get();
        let changed = state.follow(&hotkeys);
        if !changed.is_empty() {
            tracing::info!(?changed, "uids changed hands: their weights are gone");
        }
        let _ = self
            .state
            .update(|state| state.follow(&hotkeys))
            .inspect_err(|error| {
                let error = causes::one_line(error);
                tracing::warn!(
                    error,
                    "could not write the state; the weights go out all the same"
                );
            });
        let weighed = (0..).map(Uid).zip(
            state
                .weights
                .values()
                .iter()
                .map(|weight| f64::from(*weight)),
        );
        match weights::emit_within(weighed, snapshot.hyperparameters.max_weight_limit) {
            Ok(emitted) if !emitted.is_empty() => Some(emitted),
            Ok(_) => None,
            Err(error) => {
                tracing::error!(error = causes::one_line(&error), "the weights can't be set");
                None
            }
        }
    }

    /// Writes age and alarms on the board, and holds restarts off when weights are about to be due.
    fn show(&self, snapshot: &ChainSnapshot, clock: &Clock, head: BlockNumber) {
        self.board
            .note(|details| details.weights = Some(clock.at(head)));
        let hyperparameters = &snapshot.hyperparameters;
        let cutoff = hyperparameters.activity_cutoff;
        let waiting = !self.has_opinion();
        match clock.lateness(head, self.terms.epoch, cutoff, waiting) {
            Some((health, text)) => self.alarms.overdue.raise(health, text),
            None => self.alarms.overdue.end(),
        }
        if clock.failed == 0 {
            self.alarms.not_set.end();
        }
        match clock.due_soon(head).filter(|_| !waiting) {
            Some(ahead) => {
                let millis = ahead.max(1) * hyperparameters.block_millis;
                let until = shared::clock::unix_seconds() + 2 * millis.div_ceil(1000);
                let reason = format!("weights are due in {ahead} blocks");
                self.board.hold(Hold::WeightsDue, reason, Some(until));
            }
            None => self.board.release(Hold::WeightsDue),
        }
    }
}

/// Returns the blocks that the chain wants us to wait, if it said so.
fn wait(error: &SetWeightsError) -> Option<u64> {
    let SetWeightsError::Refused(refusals) = error else {
        return None;
    };
    refusals.iter().find_map(Refusal::wait)
}

/// Returns how long one try may take: it ends before the next weights are due.
fn window(blocks: u64, block_millis: u64) -> Duration {
    Duration::from_millis(blocks.saturating_mul(block_millis))
        .clamp(Duration::from_secs(10), Duration::from_secs(600))
}

fn kept(receipt: &WeightsReceipt) -> Receipt {
    let stored = receipt
        .stored
        .clone()
        .unwrap_or_else(|| receipt.weights.pairs().collect());
    Receipt {
        block: receipt.block,
        extrinsic: receipt.extrinsic_hash.clone(),
        attempts: receipt.attempts,
        stored: stored
            .into_iter()
            .map(|(uid, weight)| (Uid(uid), weight))
            .collect(),
    }
}

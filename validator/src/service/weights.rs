//! The weights task: sets the weights of the last complete step when they are due, by blocks.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use shared::{Failure, clock, status::Health};

use super::{Parts, origin};
use chain::{
    ChainSnapshot,
    weights::{self, Emitted, Refusal, Reveal, SetWeightsError, WeightsReceipt, WeightsRequest},
};
use report::step_record::Receipt;
use subnet::{BlockNumber, Uid};

/// A restart within so many blocks of due weights would hurt.
const HOLD_BLOCKS: u64 = 3;

/// The longest pause between tries, in blocks; it doubles from one.
const LONGEST_PAUSE: u64 = 16;

/// Commits watched until they are revealed: those of two of the chain's epochs, and more.
const MAX_UNREVEALED: usize = 16;

/// How things stand.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Block of our last weight set on the chain, or of our registration.
    last: BlockNumber,
    /// Block at which the next one is due.
    due: BlockNumber,
    /// Tries that failed since.
    failed: u32,
    /// No try before this block.
    not_before: BlockNumber,
}

pub(super) async fn run(parts: Arc<Parts>) -> Result<(), Failure> {
    let mut head = parts.head.subscribe();
    let mut clock = Clock {
        last: 0,
        due: 0,
        failed: 0,
        not_before: 0,
    };
    let mut unrevealed: Vec<WeightsReceipt> = Vec::new();
    loop {
        let block = *head.borrow_and_update();
        let snapshot = parts.snapshot();
        clock.follow(&parts, &snapshot);
        watch_twins(&parts, &snapshot).await;
        watch_reveals(&parts, &mut unrevealed, block).await;
        show(&parts, &clock, block);
        if block >= clock.due.max(clock.not_before) && has_opinion(&parts) {
            let receipt = set(&parts, &mut clock, block).await;
            unrevealed.extend(receipt.filter(|receipt| receipt.reveal.is_some()));
            let superseded = unrevealed.len().saturating_sub(MAX_UNREVEALED);
            unrevealed.drain(..superseded);
            show(&parts, &clock, *head.borrow());
        }
        tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            changed = head.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Raises the alarm when weights were set with our hotkey and not by us.
async fn watch_twins(parts: &Parts, snapshot: &ChainSnapshot) {
    let (Some(client), Some(neuron)) = (&parts.client, snapshot.neuron(&parts.context.hotkey))
    else {
        return;
    };
    let mut twin = parts.twin.lock().await;
    match twin.check(client, &parts.wallet, neuron).await {
        Ok(None) => {}
        Ok(Some(alarm)) => {
            tracing::error!(%alarm, "somebody else uses our hotkey");
            parts.context.board.problem("twin", Health::Red, alarm);
        }
        Err(error) => tracing::debug!(%error, "could not look for a twin"),
    }
}

/// Follows committed weights until the chain shows them; raises the alarm if it never does.
async fn watch_reveals(parts: &Parts, unrevealed: &mut Vec<WeightsReceipt>, block: BlockNumber) {
    let Some(client) = &parts.client else { return };
    // The newest first: commits of one epoch are revealed together, and only the last is seen.
    for index in (0..unrevealed.len()).rev() {
        let receipt = &unrevealed[index];
        if receipt.reveal.is_none_or(|plan| plan.block > block) {
            continue;
        }
        let committed = receipt.block;
        match weights::reveal(client, receipt).await {
            Ok(Reveal::Waiting { .. }) => continue,
            Ok(Reveal::NotNeeded) => {}
            Ok(Reveal::Visible { block }) => {
                tracing::info!(committed, block, "committed weights are revealed");
                parts.context.board.well("reveal");
            }
            Ok(Reveal::Missed { block }) => {
                let text = format!(
                    "the weights committed at block {committed} were not revealed by block {block}"
                );
                tracing::error!(committed, block, "committed weights were not revealed");
                parts.context.board.problem("reveal", Health::Red, text);
            }
            Err(error) => {
                tracing::debug!(%error, "could not look for the reveal");
                return;
            }
        }
        unrevealed.drain(..=index);
        return;
    }
}

/// Returns whether there is anything of our own to say.
fn has_opinion(parts: &Parts) -> bool {
    let state = &parts.context.state;
    state.look(|state| state.steps_done > 0 && !state.weights.is_zero())
}

/// Sets the weights; returns the receipt if the chain took them.
async fn set(parts: &Parts, clock: &mut Clock, block: BlockNumber) -> Option<WeightsReceipt> {
    let context = &parts.context;
    let board = &context.board;
    let (client, emitted) = (parts.client.as_ref()?, emitted(parts)?);
    let parameters = &context.settings.parameters;
    let millis = parts.snapshot().hyperparameters.block_millis;
    let request = WeightsRequest {
        netuid: parameters.netuid,
        mechanism: 0,
        weights: emitted,
        version_key: parameters.weights_version,
        window: window(parameters.blocks_per_epoch, millis),
    };
    let until = clock::unix_seconds() + request.window.as_secs();
    board.hold("weights", "weights are being set", Some(until));
    let outcome = weights::set(client, &parts.wallet, &request).await;
    board.release("weights");
    match outcome {
        Ok(receipt) => {
            tracing::info!(
                block = receipt.block,
                extrinsic = receipt.extrinsic_hash,
                "weights set"
            );
            clock.last = receipt.block;
            clock.failed = 0;
            clock.due = receipt.block + parameters.blocks_per_epoch;
            let kept = kept(&receipt);
            board.fact("receipt", json!(kept));
            if let Err(fault) = context.update(|state| state.receipt = Some(kept)) {
                tracing::warn!(%fault, "could not keep the receipt");
            }
            Some(receipt)
        }
        Err(error) => {
            clock.failed += 1;
            let pause = 2_u64.saturating_pow(clock.failed - 1).min(LONGEST_PAUSE);
            clock.not_before = match &error {
                SetWeightsError::Refused(refusals) => refusals
                    .iter()
                    .find_map(|refusal| match refusal {
                        Refusal::TooSoon { blocks, .. } => Some(block + blocks),
                        _ => None,
                    })
                    .unwrap_or(block + pause),
                _ => block + pause,
            };
            tracing::warn!(%error, times = clock.failed, next = clock.not_before, "weights not set");
            board.problem(
                "weights",
                Health::Yellow,
                format_args!("weights not set: {error}"),
            );
            None
        }
    }
}

/// Returns how long one try may take: it ends before the next weights are due.
fn window(blocks: u64, block_millis: u64) -> Duration {
    Duration::from_millis(blocks.saturating_mul(block_millis))
        .clamp(Duration::from_secs(10), Duration::from_secs(600))
}

/// Returns the weights for the chain; `None` while there is nothing to say. A uid that changed
/// hands since the last step gets nothing.
fn emitted(parts: &Parts) -> Option<Emitted> {
    let snapshot = parts.snapshot();
    let hotkeys = origin::hotkeys(&snapshot);
    let followed = parts.context.update(|state| {
        let changed = state.follow(&hotkeys);
        (changed, state.weights.clone())
    });
    let (changed, weights) = followed
        .inspect_err(|fault| tracing::warn!(%fault, "could not write the state"))
        .ok()?;
    if !changed.is_empty() {
        tracing::info!(?changed, "uids changed hands: their weights are gone");
    }
    let weighed = (0..)
        .map(Uid)
        .zip(weights.values().iter().map(|weight| f64::from(*weight)));
    match weights::emit(weighed) {
        Ok(emitted) if !emitted.is_empty() => Some(emitted),
        Ok(_) => None,
        Err(error) => {
            tracing::error!(%error, "the weights can't be set");
            None
        }
    }
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

impl Clock {
    /// Takes over what the chain knows of our last weight set.
    fn follow(&mut self, parts: &Parts, snapshot: &ChainSnapshot) {
        let Some(neuron) = snapshot.neuron(&parts.context.hotkey) else {
            return;
        };
        self.last = self.last.max(neuron.last_update);
        let epoch = parts.context.settings.parameters.blocks_per_epoch;
        let limit = snapshot.hyperparameters.weights_rate_limit;
        self.due = self.last + epoch.max(limit);
    }
}

/// Writes age and alarms on the board, and holds restarts off when weights are about to be due.
fn show(parts: &Parts, clock: &Clock, head: BlockNumber) {
    let board = &parts.context.board;
    let age = head.saturating_sub(clock.last);
    let late = head.saturating_sub(clock.due);
    board.fact(
        "weights",
        json!({
            "last_block": clock.last, "age_blocks": age, "due_block": clock.due,
            "late_blocks": late, "failed_tries": clock.failed,
        }),
    );
    let snapshot = parts.snapshot();
    let epoch = parts.context.settings.parameters.blocks_per_epoch;
    let cutoff = u64::from(snapshot.hyperparameters.activity_cutoff);
    let text = format!("the weights on the chain are {age} blocks old, {late} overdue");
    let waiting = !has_opinion(parts);
    if age + epoch >= cutoff && late > 0 {
        let text = format!("{text}; at {cutoff} blocks the chain takes us for inactive");
        board.problem("weights age", Health::Red, text);
    } else if late > 2 * epoch {
        board.problem("weights age", Health::Red, text);
    } else if late > epoch / 2 && !waiting {
        board.problem("weights age", Health::Yellow, text);
    } else {
        board.well("weights age");
        if clock.failed == 0 {
            board.well("weights");
        }
    }
    let ahead = clock.due.saturating_sub(head);
    if ahead <= HOLD_BLOCKS && clock.failed == 0 && !waiting {
        let millis = ahead.max(1) * snapshot.hyperparameters.block_millis;
        let until = clock::unix_seconds() + 2 * millis.div_ceil(1000);
        board.hold(
            "weights due",
            format!("weights are due in {ahead} blocks"),
            Some(until),
        );
    } else {
        board.release("weights due");
    }
}

//! Looking on the chain: did a transaction arrive, did it succeed, what is stored, is it revealed?

use serde::{Deserialize, Serialize};
use subxt::{
    config::{
        Hasher as _,
        substrate::{BlakeTwo256, H256},
    },
    dynamic::Value as Argument,
};

use super::{
    WeightsReceipt,
    preflight::{last_update, storage_index, stored_weights},
};
use crate::{block::Block, client::Client, decode::Value, error::ChainError};
use subnet::BlockNumber;

/// How a transaction in a block ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Execution {
    /// It did what it should.
    Success,
    /// The runtime refused it, with this error.
    Failed(String),
    /// The block does not contain it.
    Absent,
}

/// Finds a transaction in a block and tells how it ended.
pub(super) async fn outcome(
    client: &Client,
    block: &Block,
    extrinsic: &[u8],
) -> Result<Execution, ChainError> {
    let Some(index) = client
        .extrinsics(block.hash)
        .await?
        .iter()
        .position(|other| other == extrinsic)
    else {
        return Ok(Execution::Absent);
    };
    let events = block
        .read_one("System", "Events", vec![])
        .await?
        .unwrap_or(Value::List(vec![]));
    let undecodable = |error| block.runtime().decode_error("System.Events", error);
    for record in events.list().map_err(undecodable)? {
        let read = || {
            let (phase, of) = record.field("phase")?.variant()?;
            let (pallet, event) = record.field("event")?.variant()?;
            let (name, content) = event.variant()?;
            let ours = phase == "ApplyExtrinsic" && of.uint::<usize>()? == index;
            Ok((ours && pallet == "System").then_some((name, content)))
        };
        match read().map_err(undecodable)? {
            Some(("ExtrinsicSuccess", _)) => return Ok(Execution::Success),
            Some(("ExtrinsicFailed", content)) => {
                let error = content
                    .get("dispatch_error")
                    .map(|error| name_of(block, error));
                return Ok(Execution::Failed(
                    error.unwrap_or_else(|| "no reason given".to_owned()),
                ));
            }
            _ => {}
        }
    }
    Ok(Execution::Failed(
        "the block holds no event about it".to_owned(),
    ))
}

/// Returns the name of a dispatch error, as `Pallet error` enums or the runtime itself name it.
fn name_of(block: &Block, error: &Value) -> String {
    let module = || {
        let (kind, content) = error.variant().ok()?;
        if kind != "Module" {
            return Some(kind.to_owned());
        }
        let pallet: u8 = content.field("index").ok()?.uint().ok()?;
        let code = *content.field("error").ok()?.bytes().ok()?.first()?;
        let name = block.runtime().module_error(pallet, code);
        Some(name.unwrap_or_else(|| format!("error {code} of pallet {pallet}")))
    };
    module().unwrap_or_else(|| "an error of unknown shape".to_owned())
}

/// Looks for a transaction in the blocks after `birth`, up to the head; `first` is looked at first.
pub(super) async fn find(
    client: &Client,
    head: &Block,
    birth: BlockNumber,
    first: BlockNumber,
    extrinsic: &[u8],
) -> Result<Option<(Block, Execution)>, ChainError> {
    let range = birth + 1..=head.number();
    let likely = range.contains(&first).then_some(first);
    for number in likely
        .into_iter()
        .chain(range.filter(|number| Some(*number) != likely))
    {
        let block = client.block_at(number).await?;
        match outcome(client, &block, extrinsic).await? {
            Execution::Absent => {}
            ended => return Ok(Some((block, ended))),
        }
    }
    Ok(None)
}

/// Returns how many transactions of an account the chain has executed.
pub(super) async fn nonce(block: &Block, account: [u8; 32]) -> Result<u64, ChainError> {
    let account = Argument::from_bytes(account);
    let nonce = block
        .call("AccountNonceApi", "account_nonce", vec![account])
        .await?;
    nonce.uint().map_err(|error| {
        block
            .runtime()
            .decode_error("AccountNonceApi.account_nonce", error)
    })
}

/// Whether weights that were set are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Their block is final.
    Final,
    /// Their block stands, and may still be taken back.
    Open,
    /// Their block was taken back, and another one includes them.
    Moved {
        /// The other block.
        block: BlockNumber,
    },
    /// Their block was taken back, and no other includes them.
    Gone,
}

/// Looks whether the block that included weights still stands.
pub async fn standing(client: &Client, receipt: &WeightsReceipt) -> Result<Standing, ChainError> {
    let head = client.head().await?;
    let is_there = receipt.block <= head.number()
        && hex_hash(client.hash_at(receipt.block).await?) == receipt.block_hash;
    if is_there {
        let last = client.finalized_number().await?;
        return Ok(if last >= receipt.block {
            Standing::Final
        } else {
            Standing::Open
        });
    }
    let index = storage_index(receipt.netuid, receipt.mechanism);
    let updated = last_update(&head, index, receipt.uid).await?;
    if updated > 0 && updated <= head.number() {
        let hash = client.hash_at(updated).await?;
        let extrinsics = client.extrinsics(hash).await?;
        let ours = extrinsics
            .iter()
            .any(|extrinsic| hex_hash(BlakeTwo256.hash(extrinsic)) == receipt.extrinsic_hash);
        if ours {
            return Ok(Standing::Moved { block: updated });
        }
    }
    Ok(Standing::Gone)
}

/// What became of committed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Reveal {
    /// Nothing to wait for: they were set in the clear.
    NotNeeded,
    /// Not yet.
    Waiting {
        /// First block of the epoch that reveals them.
        block: BlockNumber,
    },
    /// The chain shows exactly them.
    Visible {
        /// Block at which we saw them.
        block: BlockNumber,
    },
    /// Their epoch has passed, and the chain shows others.
    Missed {
        /// Block at which we looked.
        block: BlockNumber,
    },
}

/// Looks whether committed weights are revealed.
pub async fn reveal(client: &Client, receipt: &WeightsReceipt) -> Result<Reveal, ChainError> {
    let Some(plan) = receipt.reveal else {
        return Ok(Reveal::NotNeeded);
    };
    let head = client.head().await?;
    let block = head.number();
    if block < plan.block {
        return Ok(Reveal::Waiting { block: plan.block });
    }
    let stored = stored_weights(&head, receipt.netuid, receipt.mechanism, receipt.uid).await?;
    if stored.iter().copied().eq(receipt.weights.pairs()) {
        return Ok(Reveal::Visible { block });
    }
    // The chain tries again in each block of the epoch while the beacon's round is missing.
    let tempo = head.read_one(
        "SubtensorModule",
        "Tempo",
        vec![Argument::u128(receipt.netuid.0.into())],
    );
    let tempo: u64 = tempo
        .await?
        .map_or(Ok(0), |tempo| tempo.uint())
        .map_err(|error| head.runtime().decode_error("SubtensorModule.Tempo", error))?;
    Ok(if block < plan.block.saturating_add(tempo) {
        Reveal::Waiting { block: plan.block }
    } else {
        Reveal::Missed { block }
    })
}

/// Reads back what the chain stores for a plain weight set; says what differs.
pub(super) async fn read_back(
    block: &Block,
    receipt: &WeightsReceipt,
) -> Result<Result<Vec<(u16, u16)>, String>, ChainError> {
    let stored = stored_weights(block, receipt.netuid, receipt.mechanism, receipt.uid).await?;
    if stored.iter().copied().eq(receipt.weights.pairs()) {
        return Ok(Ok(stored));
    }
    let ours: Vec<_> = receipt.weights.pairs().collect();
    let differing = stored
        .iter()
        .zip(&ours)
        .find(|(theirs, ours)| theirs != ours);
    Ok(Err(match differing {
        Some((theirs, ours)) => format!("(uid, weight) is {theirs:?}, ours was {ours:?}"),
        None => format!(
            "{} weights are stored, ours were {}",
            stored.len(),
            ours.len()
        ),
    }))
}

/// Returns a hash as it is written everywhere.
pub(super) fn hex_hash(hash: H256) -> String {
    format!("0x{}", hex::encode(hash.0))
}

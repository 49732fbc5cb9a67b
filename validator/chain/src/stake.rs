//! Stake as the chain counts it for epochs and thresholds, from storage: alpha of the subnet and
//! TAO of the root network by its weight, each as parents and children pass it on.

use std::collections::{BTreeMap, BTreeSet};

use subxt::dynamic::Value as Argument;

use super::{
    block::{Block, StorageItem},
    decode::{DecodeError, Value},
    error::ChainError,
    hyperparameters::{PALLET, argument},
};
use subnet::{Hotkey, Netuid};

const ALPHA: &str = "TotalHotkeyAlpha";

/// Of a hotkey before alpha existed.
const OLD_STAKE: &str = "TotalHotkeyStake";

const ROOT: Netuid = Netuid(0);

/// Relatives of a hotkey: which share of its stake goes there, or comes from there.
type Shares = Vec<(u64, Hotkey)>;

/// Reads the stake of these hotkeys, in their order, in rao.
pub(super) async fn read(
    block: &Block,
    netuid: Netuid,
    hotkeys: &[Hotkey],
) -> Result<Vec<u64>, ChainError> {
    if !block.runtime().has_storage(PALLET, ALPHA) {
        return amounts(
            block,
            OLD_STAKE,
            hotkeys.iter().map(|hotkey| vec![key(hotkey)]),
        )
        .await;
    }
    let relatives = |item: &'static str| async move {
        let items: Vec<StorageItem<'_>> = (hotkeys.iter())
            .map(|hotkey| (PALLET, item, vec![key(hotkey), argument(netuid)]))
            .collect();
        let rows = block.read(&items).await?;
        let rows = rows.into_iter().map(|row| row.map_or(Ok(vec![]), shares));
        let rows: Result<Vec<Shares>, _> = rows.collect();
        rows.map_err(|error| block.runtime().decode_error(item, error))
    };
    let (children, parents) = (
        relatives("ChildKeys").await?,
        relatives("ParentKeys").await?,
    );
    let known: BTreeSet<Hotkey> = (hotkeys.iter().copied())
        .chain(parents.iter().flatten().map(|(_, parent)| *parent))
        .collect();
    let known: Vec<Hotkey> = known.into_iter().collect();
    let of_all = |netuid: Netuid| {
        known
            .iter()
            .map(move |hotkey| vec![key(hotkey), argument(netuid)])
    };
    let alpha = amounts(block, ALPHA, of_all(netuid)).await?;
    let tao = amounts(block, ALPHA, of_all(ROOT)).await?;
    let tao_weight = amounts(block, "TaoWeight", [vec![]].into_iter()).await?;
    let tao_weight = tao_weight.first().copied().unwrap_or(0);
    let alpha: BTreeMap<Hotkey, u64> = known.iter().copied().zip(alpha).collect();
    let tao: BTreeMap<Hotkey, u64> = known.iter().copied().zip(tao).collect();
    let rows = hotkeys.iter().zip(children).zip(parents);
    Ok(rows
        .map(|((hotkey, children), parents)| {
            let alpha = passed_on(&alpha, hotkey, &children, &parents);
            let tao = passed_on(&tao, hotkey, &children, &parents);
            alpha.saturating_add(share(tao, tao_weight))
        })
        .collect())
}

/// Returns what a hotkey has once its children have their shares and it has those of its parents.
fn passed_on(
    own: &BTreeMap<Hotkey, u64>,
    hotkey: &Hotkey,
    children: &Shares,
    parents: &Shares,
) -> u64 {
    let of = |hotkey: &Hotkey| own.get(hotkey).copied().unwrap_or(0);
    let given = children.iter().map(|(part, _)| share(of(hotkey), *part));
    let taken = parents
        .iter()
        .map(|(part, parent)| share(of(parent), *part));
    of(hotkey)
        .saturating_sub(given.fold(0, u64::saturating_add))
        .saturating_add(taken.fold(0, u64::saturating_add))
}

/// Returns a part of an amount; the whole is `u64::MAX`.
fn share(amount: u64, part: u64) -> u64 {
    let share = u128::from(amount) * u128::from(part) / u128::from(u64::MAX);
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn key(hotkey: &Hotkey) -> Argument {
    Argument::from_bytes(hotkey.0)
}

fn shares(row: Value) -> Result<Shares, DecodeError> {
    let pair = |pair: &Value| {
        let [part, hotkey] = pair.tuple()?;
        Ok((part.uint()?, Hotkey(hotkey.account()?)))
    };
    row.list()?.iter().map(pair).collect()
}

async fn amounts(
    block: &Block,
    item: &'static str,
    keys: impl Iterator<Item = Vec<Argument>>,
) -> Result<Vec<u64>, ChainError> {
    let items: Vec<StorageItem<'_>> = keys.map(|keys| (PALLET, item, keys)).collect();
    let amounts = block.read(&items).await?;
    let amounts = (amounts.into_iter()).map(|amount| amount.map_or(Ok(0), |amount| amount.uint()));
    let amounts: Result<Vec<u64>, _> = amounts.collect();
    amounts.map_err(|error| block.runtime().decode_error(item, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_their_shares_of_what_is_the_parents_own() {
        let (a, b) = (Hotkey([1; 32]), Hotkey([2; 32]));
        let own = BTreeMap::from([(a, 1000), (b, 40)]);
        let half = u64::MAX / 2 + 1;
        assert_eq!(passed_on(&own, &a, &vec![(half, b)], &vec![]), 500);
        assert_eq!(passed_on(&own, &b, &vec![], &vec![(half, a)]), 540);
        assert_eq!(share(100, u64::MAX), 100);
    }
}

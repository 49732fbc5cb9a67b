//! The pool: which uids are evaluated in every step of a competition.

use std::{cmp::Reverse, collections::BTreeMap, collections::BTreeSet};

use subnet::{BlockNumber, Uid};

use super::WinTable;

/// Returns the `keep` uids of highest win rate; ties go to the earlier block, then the lower uid.
pub fn survivors(
    wins: &WinTable,
    blocks: &BTreeMap<Uid, BlockNumber>,
    keep: usize,
) -> BTreeSet<Uid> {
    let mut ranked: Vec<(Uid, f64)> = wins
        .rows()
        .iter()
        .map(|(uid, row)| (*uid, row.win_rate))
        .collect();
    let block = |uid: &Uid| blocks.get(uid).copied().unwrap_or(BlockNumber::MAX);
    ranked.sort_by(|(a, rate_a), (b, rate_b)| {
        rate_b
            .total_cmp(rate_a)
            .then_with(|| (block(a), a).cmp(&(block(b), b)))
    });
    ranked.into_iter().take(keep).map(|(uid, _)| uid).collect()
}

/// Returns the `keep` uids of highest consensus among `candidates`; ties go to the lower uid.
/// `consensus` is indexed by uid.
pub fn consensus_pool(candidates: &BTreeSet<Uid>, consensus: &[u16], keep: usize) -> BTreeSet<Uid> {
    let of = |uid: &Uid| consensus.get(usize::from(uid.0)).copied().unwrap_or(0);
    let mut ranked: Vec<Uid> = candidates.iter().copied().collect();
    ranked.sort_by_key(|uid| (Reverse(of(uid)), *uid));
    ranked.into_iter().take(keep).collect()
}

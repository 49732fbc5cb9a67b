//! Epochs: when they run, and how weights become consensus, incentive and dividends.
//!
//! A small Yuma: each validator's row of weights is normalized; the consensus of a column is the
//! largest weight that validators with more than `kappa` of the stake support; rows are clipped to
//! it; a neuron's incentive is its share of the stake-weighted clipped column, a validator's
//! dividend its share of the clipped rows it gave, times stake. Left out: bonds over time, liquid
//! alpha, the emission of real amounts.

use super::{
    Active, ActivityCutoff, ActivityCutoffFactorMilli, BlockAtRegistration, BlocksSinceLastStep,
    Bonds, Config, Consensus, Dividends, Emission, Incentive, Kappa, Keys, LastEpochBlock,
    LastMechansimStepBlock, LastUpdate, MaxAllowedValidators, MechanismCountCurrent, NetworksAdded,
    Pallet, PendingEpochAt, StakeThreshold, StakeWeight, SubnetEpochIndex, SubnetworkN, Tempo,
    ValidatorPermit, ValidatorTrust, Weights,
};
use crate::chain::runtime::newtype::{AlphaBalance, MechId, NetUid, PerU16};

/// Longest time between epochs, in blocks, whatever the tempo.
const MAX_TEMPO: u64 = 50_400;

/// Alpha that a subnet emits in each block, in rao.
const EMISSION_PER_BLOCK: u64 = 1_000_000_000;

impl<T: Config> Pallet<T> {
    /// Returns whether this block must run the subnet's epoch.
    pub fn epoch_is_due(netuid: NetUid, block: u64) -> bool {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        let pending = PendingEpochAt::<T>::get(netuid);
        tempo != 0
            && ((pending > 0 && block >= pending)
                || BlocksSinceLastStep::<T>::get(netuid) > MAX_TEMPO
                || block.saturating_sub(LastEpochBlock::<T>::get(netuid)) >= tempo)
    }

    /// Returns the next block that will run the subnet's epoch; `None` if none ever will.
    pub fn next_epoch_start(netuid: NetUid) -> Option<u64> {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        if !NetworksAdded::<T>::get(netuid) || tempo == 0 {
            return None;
        }
        let regular = LastEpochBlock::<T>::get(netuid) + tempo;
        let pending = PendingEpochAt::<T>::get(netuid);
        let next = if pending > 0 {
            regular.min(pending)
        } else {
            regular
        };
        Some(next.max(Self::block() + 1))
    }

    /// Does a block's work for all subnets: reveals, then epochs.
    pub(super) fn step() {
        let block = Self::block();
        let mut netuids: Vec<NetUid> = NetworksAdded::<T>::iter_keys()
            .filter(|netuid| netuid.0 != 0)
            .collect();
        netuids.sort_unstable();
        for netuid in &netuids {
            Self::reveal_commits(*netuid, block);
        }
        for netuid in netuids {
            if Self::epoch_is_due(netuid, block) {
                Self::run_epoch(netuid, block);
                LastEpochBlock::<T>::insert(netuid, block);
                LastMechansimStepBlock::<T>::insert(netuid, block);
                PendingEpochAt::<T>::insert(netuid, 0);
                BlocksSinceLastStep::<T>::insert(netuid, 0);
                SubnetEpochIndex::<T>::mutate(netuid, |index| *index += 1);
            } else {
                BlocksSinceLastStep::<T>::mutate(netuid, |blocks| *blocks += 1);
            }
        }
    }

    fn run_epoch(netuid: NetUid, block: u64) {
        let places = usize::from(SubnetworkN::<T>::get(netuid));
        let stake: Vec<u64> = (0..places)
            .map(|uid| Self::stake_of(netuid, &Keys::<T>::get(netuid, uid as u16)).total)
            .collect();
        let cutoff = Self::activity_cutoff(netuid);
        let updated = LastUpdate::<T>::get(netuid.index(MechId(0)));
        let active: Vec<bool> = updated.iter().map(|at| at + cutoff >= block).collect();
        let permitted = ValidatorPermit::<T>::get(netuid);
        let counts =
            |uid: usize| active.get(uid) == Some(&true) && permitted.get(uid) == Some(&true);
        let weighed: Vec<u64> = (0..places)
            .map(|uid| if counts(uid) { stake[uid] } else { 0 })
            .collect();
        let kappa = f64::from(Kappa::<T>::get(netuid)) / 65_535.0;
        let pay = EMISSION_PER_BLOCK * block.saturating_sub(LastEpochBlock::<T>::get(netuid));

        for mecid in (0..MechanismCountCurrent::<T>::get(netuid).0).map(MechId) {
            let index = netuid.index(mecid);
            let rows: Vec<Vec<(u16, u16)>> = (0..places)
                .map(|uid| Self::valid_row(netuid, mecid, uid as u16))
                .collect();
            let outcome = consensus(&weighed, &rows, kappa);
            Incentive::<T>::insert(index, column(&outcome.incentive, per_u16));
            for (uid, row) in rows.iter().enumerate().filter(|(uid, _)| weighed[*uid] > 0) {
                Bonds::<T>::insert(index, uid as u16, row.clone());
            }
            if mecid == MechId(0) {
                let paid = |uid: usize| outcome.incentive[uid] / 2.0 + outcome.dividends[uid] / 2.0;
                let emission = |uid| AlphaBalance((paid(uid) * pay as f64) as u64);
                Consensus::<T>::insert(netuid, column(&outcome.consensus, per_u16));
                Dividends::<T>::insert(netuid, column(&outcome.dividends, |v| per_u16(v).0));
                ValidatorTrust::<T>::insert(netuid, column(&outcome.trust, |v| per_u16(v).0));
                Emission::<T>::insert(netuid, (0..places).map(emission).collect::<Vec<_>>());
            }
        }
        let total: f64 = weighed.iter().map(|stake| *stake as f64).sum();
        let share = |stake: &u64| {
            if total > 0.0 {
                per_u16(*stake as f64 / total).0
            } else {
                0
            }
        };
        StakeWeight::<T>::insert(netuid, weighed.iter().map(share).collect::<Vec<_>>());
        Active::<T>::insert(netuid, active);
        ValidatorPermit::<T>::insert(netuid, Self::permits(netuid, &stake));
    }

    /// Returns the blocks without weights after which a validator no longer counts.
    fn activity_cutoff(netuid: NetUid) -> u64 {
        let factor = u64::from(ActivityCutoffFactorMilli::<T>::get(netuid));
        if factor == 0 {
            return u64::from(ActivityCutoff::<T>::get(netuid));
        }
        (factor * u64::from(Tempo::<T>::get(netuid)) / 1000).max(1)
    }

    /// A neuron's weights, without itself and those registered since it set them.
    fn valid_row(netuid: NetUid, mecid: MechId, uid: u16) -> Vec<(u16, u16)> {
        let index = netuid.index(mecid);
        let set_at = LastUpdate::<T>::get(index)
            .get(usize::from(uid))
            .copied()
            .unwrap_or(0);
        let places = SubnetworkN::<T>::get(netuid);
        let mut row = Weights::<T>::get(index, uid);
        row.retain(|(target, _)| {
            *target != uid
                && *target < places
                && BlockAtRegistration::<T>::get(netuid, target) <= set_at
        });
        row
    }

    /// Permits go to the largest stakes that reach the threshold.
    fn permits(netuid: NetUid, stake: &[u64]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..stake.len())
            .filter(|uid| stake[*uid] > 0 && stake[*uid] >= StakeThreshold::<T>::get())
            .collect();
        order.sort_by_key(|uid| (std::cmp::Reverse(stake[*uid]), *uid));
        order.truncate(usize::from(MaxAllowedValidators::<T>::get(netuid)));
        let mut permits = vec![false; stake.len()];
        for uid in order {
            permits[uid] = true;
        }
        permits
    }
}

fn column<V>(values: &[f64], each: impl Fn(f64) -> V) -> Vec<V> {
    values.iter().copied().map(each).collect()
}

fn per_u16(share: f64) -> PerU16 {
    PerU16((share.clamp(0.0, 1.0) * 65_535.0) as u16)
}

/// What an epoch found, one entry for each uid, as shares of one.
struct Outcome {
    consensus: Vec<f64>,
    incentive: Vec<f64>,
    dividends: Vec<f64>,
    /// Of each validator: how much of its row kept within the consensus.
    trust: Vec<f64>,
}

fn consensus(stake: &[u64], rows: &[Vec<(u16, u16)>], kappa: f64) -> Outcome {
    let places = stake.len();
    let total: f64 = stake.iter().map(|stake| *stake as f64).sum();
    let share: Vec<f64> = stake
        .iter()
        .map(|stake| {
            if total > 0.0 {
                *stake as f64 / total
            } else {
                0.0
            }
        })
        .collect();
    let mut matrix = vec![vec![0.0; places]; places];
    for (row, weights) in matrix.iter_mut().zip(rows) {
        let sum: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
        for (uid, weight) in weights.iter().filter(|_| sum > 0.0) {
            row[usize::from(*uid)] = f64::from(*weight) / sum;
        }
    }
    let consensus: Vec<f64> = (0..places)
        .map(|uid| supported(&share, &matrix, uid, kappa))
        .collect();
    let clipped = |by: usize, uid: usize| f64::min(matrix[by][uid], consensus[uid]);
    let rank: Vec<f64> = (0..places)
        .map(|uid| (0..places).map(|by| share[by] * clipped(by, uid)).sum())
        .collect();
    let trust: Vec<f64> = (0..places)
        .map(|by| {
            if share[by] > 0.0 {
                (0..places).map(|uid| clipped(by, uid)).sum()
            } else {
                0.0
            }
        })
        .collect();
    let incentive = normalized(rank);
    let earned = (0..places)
        .map(|by| {
            share[by]
                * (0..places)
                    .map(|uid| clipped(by, uid) * incentive[uid])
                    .sum::<f64>()
        })
        .collect();
    Outcome {
        consensus,
        dividends: normalized(earned),
        incentive,
        trust,
    }
}

/// The largest weight for `uid` that validators with more than `kappa` of the stake support.
fn supported(share: &[f64], matrix: &[Vec<f64>], uid: usize, kappa: f64) -> f64 {
    let mut given: Vec<(f64, f64)> = share
        .iter()
        .zip(matrix)
        .filter(|(share, _)| **share > 0.0)
        .map(|(share, row)| (row[uid], *share))
        .collect();
    given.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut support = 0.0;
    for (weight, share) in given {
        support += share;
        if support > kappa {
            return weight;
        }
    }
    0.0
}

fn normalized(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        for value in &mut values {
            *value /= sum;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_cannot_lift_a_neuron() {
        let rows = vec![vec![(2, 65_535)], vec![(3, 65_535)], vec![], vec![]];
        let outcome = consensus(&[900, 100, 0, 0], &rows, 0.5);
        assert_eq!(outcome.consensus, [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(outcome.incentive, [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(outcome.dividends, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(outcome.trust, [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn agreeing_validators_pay_by_weight() {
        let row = vec![(2, 16_384), (3, 49_151)];
        let outcome = consensus(&[500, 500, 0, 0], &[row.clone(), row, vec![], vec![]], 0.5);
        assert!((outcome.incentive[2] - 0.25).abs() < 1e-4);
        assert!((outcome.incentive[3] - 0.75).abs() < 1e-4);
        assert!((outcome.dividends[0] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn without_stake_nobody_is_paid() {
        let outcome = consensus(&[0, 0], &[vec![(1, 65_535)], vec![]], 0.5);
        assert_eq!(outcome.incentive, [0.0, 0.0]);
    }
}

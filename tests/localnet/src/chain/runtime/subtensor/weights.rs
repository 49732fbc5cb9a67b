//! Setting weights: every refusal, in Bittensor's order.

use std::collections::BTreeSet;

use frame_support::ensure;
use sp_runtime::{AccountId32, DispatchError, DispatchResult, traits::UniqueSaturatedInto};

use super::{
    CommitRevealWeightsEnabled, Config, Error, Event, LastUpdate, MaxWeightsLimit,
    MechanismCountCurrent, MinAllowedWeights, NetworksAdded, Pallet, StakeThreshold,
    SubnetOwnerHotkey, SubnetworkN, TaoWeight, TotalHotkeyAlpha, Uids, ValidatorPermit, Weights,
    WeightsSetRateLimit, WeightsVersionKey,
};
use crate::chain::runtime::newtype::{MechId, NetUid, NetUidStorageIndex};

/// A hotkey's stake on a subnet, in rao.
#[derive(Debug, Clone, Copy)]
pub struct Stake {
    pub alpha: u64,
    pub tao: u64,
    /// Alpha and the share of TAO that counts: what the epoch and the threshold go by.
    pub total: u64,
}

impl<T: Config> Pallet<T> {
    /// Returns the current block's number.
    pub fn block() -> u64 {
        frame_system::Pallet::<T>::block_number().unique_saturated_into()
    }

    /// Returns the neuron's place on a subnet.
    pub fn uid_of(netuid: NetUid, hotkey: &AccountId32) -> Option<u16> {
        Uids::<T>::get(netuid, hotkey)
    }

    /// Returns a hotkey's stake on a subnet.
    pub fn stake_of(netuid: NetUid, hotkey: &AccountId32) -> Stake {
        let alpha = TotalHotkeyAlpha::<T>::get(hotkey, netuid).0;
        let tao = TotalHotkeyAlpha::<T>::get(hotkey, NetUid(0)).0;
        let share = u128::from(tao) * u128::from(TaoWeight::<T>::get()) / u128::from(u64::MAX);
        Stake {
            alpha,
            tao,
            total: alpha.saturating_add(share as u64),
        }
    }

    /// Returns whether a hotkey has stake enough for weights.
    pub fn has_stake_for_weights(netuid: NetUid, hotkey: &AccountId32) -> bool {
        SubnetOwnerHotkey::<T>::get(netuid) == *hotkey
            || Self::stake_of(netuid, hotkey).total >= StakeThreshold::<T>::get()
    }

    /// Returns whether a neuron waited long enough since its last weights.
    pub fn passes_rate_limit(netuid: NetUid, index: NetUidStorageIndex, uid: u16) -> bool {
        let last = LastUpdate::<T>::get(index)
            .get(usize::from(uid))
            .copied()
            .unwrap_or(0);
        last == 0 || Self::block().saturating_sub(last) >= WeightsSetRateLimit::<T>::get(netuid)
    }

    pub(super) fn ensure_mechanism(netuid: NetUid, mecid: MechId) -> DispatchResult {
        let exists =
            NetworksAdded::<T>::get(netuid) && mecid.0 < MechanismCountCurrent::<T>::get(netuid).0;
        ensure!(exists, Error::<T>::MechanismDoesNotExist);
        Ok(())
    }

    /// The extrinsic's way: refused where weights must be committed first.
    pub(super) fn set_weights_now(
        who: &AccountId32,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        ensure!(
            !CommitRevealWeightsEnabled::<T>::get(netuid),
            Error::<T>::CommitRevealEnabled
        );
        Self::check_and_store(who, netuid, mecid, uids, values, version_key)
    }

    /// Checks weights and stores them. Where commit-reveal is on this is the reveal: the rate
    /// limit and `LastUpdate` were the commit's affair.
    pub(super) fn check_and_store(
        who: &AccountId32,
        netuid: NetUid,
        mecid: MechId,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
    ) -> DispatchResult {
        let revealing = CommitRevealWeightsEnabled::<T>::get(netuid);
        ensure!(netuid.0 != 0, Error::<T>::CanNotSetRootNetworkWeights);
        ensure!(
            uids.len() == values.len(),
            Error::<T>::WeightVecNotEqualSize
        );
        Self::ensure_mechanism(netuid, mecid)?;
        let index = netuid.index(mecid);
        let places = usize::from(SubnetworkN::<T>::get(netuid));
        ensure!(
            uids.len() <= places,
            Error::<T>::UidsLengthExceedUidsInSubNet
        );
        let uid = Self::uid_of(netuid, who).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        ensure!(
            Self::has_stake_for_weights(netuid, who),
            Error::<T>::NotEnoughStakeToSetWeights
        );
        let lowest_version = WeightsVersionKey::<T>::get(netuid);
        ensure!(
            lowest_version == 0 || version_key >= lowest_version,
            Error::<T>::IncorrectWeightVersionKey
        );
        ensure!(
            revealing || Self::passes_rate_limit(netuid, index, uid),
            Error::<T>::SettingWeightsTooFast
        );
        Self::ensure_vector(netuid, who, uid, uids, places)?;
        let stored = upscale(values);
        let limit = MaxWeightsLimit::<T>::get(netuid);
        ensure!(
            uids == [uid] || within_limit(&stored, limit),
            Error::<T>::MaxWeightExceeded
        );

        Weights::<T>::insert(
            index,
            uid,
            uids.iter().copied().zip(stored).collect::<Vec<_>>(),
        );
        if !revealing {
            Self::touch(index, uid);
        }
        Self::deposit_event(Event::WeightsSet(index, uid));
        Ok(())
    }

    /// The checks from the permit to the length; a single weight on itself is spared most.
    fn ensure_vector(
        netuid: NetUid,
        who: &AccountId32,
        uid: u16,
        uids: &[u16],
        places: usize,
    ) -> Result<(), DispatchError> {
        let self_weight = uids == [uid];
        let permitted = self_weight
            || SubnetOwnerHotkey::<T>::get(netuid) == *who
            || ValidatorPermit::<T>::get(netuid)
                .get(usize::from(uid))
                .is_some_and(|p| *p);
        ensure!(permitted, Error::<T>::NeuronNoValidatorPermit);
        let distinct: BTreeSet<_> = uids.iter().collect();
        ensure!(distinct.len() == uids.len(), Error::<T>::DuplicateUids);
        ensure!(
            uids.iter().all(|uid| usize::from(*uid) < places),
            Error::<T>::UidVecContainInvalidOne
        );
        let fewest = places.min(usize::from(MinAllowedWeights::<T>::get(netuid)));
        ensure!(
            self_weight || uids.len() >= fewest,
            Error::<T>::WeightVecLengthIsLow
        );
        Ok(())
    }

    /// Notes that the neuron spoke in this block.
    pub(super) fn touch(index: NetUidStorageIndex, uid: u16) {
        LastUpdate::<T>::mutate(index, |blocks| {
            if let Some(block) = blocks.get_mut(usize::from(uid)) {
                *block = Self::block();
            }
        });
    }
}

/// Scales weights so that the largest is 65535, rounding to the nearest; all zero stays so.
fn upscale(values: &[u16]) -> Vec<u16> {
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    if largest == 0 {
        return values.to_vec();
    }
    let scale = |value: &u16| (u64::from(*value) * 65_535 + largest / 2) / largest;
    values.iter().map(|value| scale(value) as u16).collect()
}

/// Returns whether the largest weight's share of the sum keeps to the limit, out of 65535.
fn within_limit(values: &[u16], limit: u16) -> bool {
    let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    limit == u16::MAX || sum == 0 || largest * 65_535 <= u64::from(limit) * sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn upscales_to_the_largest() {
        assert_eq!(upscale(&[1, 2, 4]), [16_384, 32_768, 65_535]);
        assert_eq!(upscale(&[0, 0]), [0, 0]);
        assert_eq!(upscale(&[]), [0_u16; 0]);
    }

    #[test]
    fn a_limit_is_a_share_of_the_sum() {
        assert!(within_limit(&[65_535, 65_535], 32_768));
        assert!(!within_limit(&[65_535, 65_534], 32_767));
        assert!(within_limit(&[65_535], u16::MAX));
    }

    proptest! {
        #[test]
        fn upscaling_keeps_order_and_is_stable(values in prop::collection::vec(any::<u16>(), 1..40)) {
            let once = upscale(&values);
            prop_assert_eq!(&upscale(&once), &once);
            for (a, b) in values.iter().zip(&once) {
                for (c, d) in values.iter().zip(&once) {
                    prop_assert!(a > c || b <= d);
                }
            }
        }
    }
}

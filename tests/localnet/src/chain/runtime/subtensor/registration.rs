//! Neurons coming to a subnet, and those whose place they take.

use frame_support::ensure;
use sp_runtime::{AccountId32, DispatchError};

use super::{
    Active, BlockAtRegistration, Bonds, Config, Consensus, Dividends, Emission, Error, Event,
    ImmunityPeriod, Incentive, IsNetworkMember, Keys, LastUpdate, MaxAllowedUids,
    MechanismCountCurrent, NetworksAdded, Owner, Pallet, StakeWeight, SubnetworkN,
    TotalHotkeyAlpha, Uids, ValidatorPermit, ValidatorTrust, Weights,
};
use crate::chain::{
    config::NeuronConfig,
    runtime::newtype::{AlphaBalance, MechId, NetUid, PerU16},
};

impl<T: Config> Pallet<T> {
    /// Gives a neuron a place: a new one, or on a full subnet that of the least paid neuron which
    /// is past its immunity. The block counts as its last update, so that it must wait a whole
    /// rate limit before its first weights; in block 0 it counts as none.
    pub fn register(netuid: NetUid, neuron: &NeuronConfig) -> Result<u16, DispatchError> {
        ensure!(NetworksAdded::<T>::get(netuid), Error::<T>::SubnetNotExists);
        let hotkey = AccountId32::new(neuron.hotkey);
        ensure!(
            Self::uid_of(netuid, &hotkey).is_none(),
            Error::<T>::HotKeyAlreadyRegisteredInSubNet
        );
        let places = SubnetworkN::<T>::get(netuid);
        let uid = if places < MaxAllowedUids::<T>::get(netuid) {
            SubnetworkN::<T>::insert(netuid, places + 1);
            places
        } else {
            Self::least_paid(netuid, places).ok_or(Error::<T>::NoNeuronIdAvailable)?
        };
        Self::settle(netuid, uid, neuron);
        Ok(uid)
    }

    /// Gives the place `uid` to a neuron; whoever held it is no longer registered.
    pub fn settle(netuid: NetUid, uid: u16, neuron: &NeuronConfig) {
        let hotkey = AccountId32::new(neuron.hotkey);
        if Keys::<T>::contains_key(netuid, uid) {
            let gone = Keys::<T>::get(netuid, uid);
            Uids::<T>::remove(netuid, &gone);
            IsNetworkMember::<T>::remove(&gone, netuid);
        }
        let block = Self::block();
        Keys::<T>::insert(netuid, uid, &hotkey);
        Uids::<T>::insert(netuid, &hotkey, uid);
        IsNetworkMember::<T>::insert(&hotkey, netuid, true);
        Owner::<T>::insert(&hotkey, AccountId32::new(neuron.coldkey));
        BlockAtRegistration::<T>::insert(netuid, uid, block);
        Self::set_stake(netuid, &hotkey, neuron.stake, neuron.tao_stake);
        let at = usize::from(uid);
        for mecid in (0..MechanismCountCurrent::<T>::get(netuid).0).map(MechId) {
            let index = netuid.index(mecid);
            Weights::<T>::remove(index, uid);
            Bonds::<T>::remove(index, uid);
            Incentive::<T>::mutate(index, |column| put(column, at, PerU16(0)));
            LastUpdate::<T>::mutate(index, |column| put(column, at, block));
        }
        Active::<T>::mutate(netuid, |column| put(column, at, true));
        StakeWeight::<T>::mutate(netuid, |column| put(column, at, 0));
        Consensus::<T>::mutate(netuid, |column| put(column, at, PerU16(0)));
        Dividends::<T>::mutate(netuid, |column| put(column, at, 0));
        Emission::<T>::mutate(netuid, |column| put(column, at, AlphaBalance(0)));
        ValidatorTrust::<T>::mutate(netuid, |column| put(column, at, 0));
        ValidatorPermit::<T>::mutate(netuid, |column| put(column, at, neuron.validator_permit));
        Self::deposit_event(Event::NeuronRegistered(netuid, uid, hotkey));
    }

    /// Sets a hotkey's alpha on a subnet and its TAO on the root network, in rao.
    pub fn set_stake(netuid: NetUid, hotkey: &AccountId32, alpha: u64, tao: u64) {
        TotalHotkeyAlpha::<T>::insert(hotkey, netuid, AlphaBalance(alpha));
        TotalHotkeyAlpha::<T>::insert(hotkey, NetUid(0), AlphaBalance(tao));
    }

    /// Gives or takes a validator permit, until the next epoch gives them anew.
    pub fn set_permit(netuid: NetUid, uid: u16, permit: bool) {
        ValidatorPermit::<T>::mutate(netuid, |column| put(column, usize::from(uid), permit));
    }

    fn least_paid(netuid: NetUid, places: u16) -> Option<u16> {
        let immune = u64::from(ImmunityPeriod::<T>::get(netuid));
        let emission = Emission::<T>::get(netuid);
        (0..places)
            .map(|uid| (uid, BlockAtRegistration::<T>::get(netuid, uid)))
            .filter(|(_, since)| Self::block().saturating_sub(*since) >= immune)
            .min_by_key(|(uid, since)| (emission.get(usize::from(*uid)).copied(), *since, *uid))
            .map(|(uid, _)| uid)
    }
}

/// Sets one entry of a column, lengthening it with defaults.
fn put<V: Default + Clone>(column: &mut Vec<V>, at: usize, value: V) {
    if column.len() <= at {
        column.resize(at + 1, V::default());
    }
    column[at] = value;
}

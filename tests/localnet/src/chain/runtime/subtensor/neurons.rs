//! Runtime API `NeuronInfoRuntimeApi`: a neuron with all its numbers.

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use super::{
    Active, Bonds, Config, Consensus, Dividends, Emission, Incentive, Keys, LastUpdate, Owner,
    Pallet, SubnetworkN, ValidatorPermit, ValidatorTrust, Weights,
};
use crate::chain::runtime::newtype::{AlphaBalance, MechId, NetUid};

/// Where a neuron serves; here none does.
#[derive(Encode, Decode, TypeInfo, Clone, Debug, Default)]
pub struct AxonInfo {
    pub block: u64,
    pub version: u32,
    pub ip: u128,
    pub port: u16,
    pub ip_type: u8,
    pub protocol: u8,
    pub placeholder1: u8,
    pub placeholder2: u8,
}

/// Where a neuron shows its metrics; here none does.
#[derive(Encode, Decode, TypeInfo, Clone, Debug, Default)]
pub struct PrometheusInfo {
    pub block: u64,
    pub version: u32,
    pub ip: u128,
    pub port: u16,
    pub ip_type: u8,
}

/// Declares both forms of a neuron: the full one has its weights and bonds too.
macro_rules! neuron {
    ($(#[$doc:meta])* $name:ident $(, $weights:ident, $bonds:ident)?) => {
        $(#[$doc])*
        #[derive(Encode, Decode, TypeInfo, Clone, Debug)]
        pub struct $name {
            pub hotkey: AccountId32,
            pub coldkey: AccountId32,
            pub uid: Compact<u16>,
            pub netuid: Compact<NetUid>,
            pub active: bool,
            pub axon_info: AxonInfo,
            pub prometheus_info: PrometheusInfo,
            pub stake: Vec<(AccountId32, Compact<AlphaBalance>)>,
            pub rank: Compact<u16>,
            pub emission: Compact<AlphaBalance>,
            pub incentive: Compact<u16>,
            pub consensus: Compact<u16>,
            pub trust: Compact<u16>,
            pub validator_trust: Compact<u16>,
            pub dividends: Compact<u16>,
            pub last_update: Compact<u64>,
            pub validator_permit: bool,
            $(
                pub $weights: Vec<(Compact<u16>, Compact<u16>)>,
                pub $bonds: Vec<(Compact<u16>, Compact<u16>)>,
            )?
            pub pruning_score: Compact<u16>,
        }

        impl $name {
            fn read<T: Config>(netuid: NetUid, uid: u16) -> Option<Self> {
                let at = usize::from(uid);
                if uid >= SubnetworkN::<T>::get(netuid) {
                    return None;
                }
                let index = netuid.index(MechId(0));
                let hotkey = Keys::<T>::get(netuid, uid);
                let coldkey = Owner::<T>::get(&hotkey);
                let stake = Pallet::<T>::stake_of(netuid, &hotkey).alpha;
                Some(Self {
                    stake: vec![(coldkey.clone(), Compact(AlphaBalance(stake)))],
                    hotkey,
                    coldkey,
                    uid: Compact(uid),
                    netuid: Compact(netuid),
                    active: entry(&Active::<T>::get(netuid), at),
                    axon_info: AxonInfo::default(),
                    prometheus_info: PrometheusInfo::default(),
                    rank: Compact(0),
                    emission: Compact(entry(&Emission::<T>::get(netuid), at)),
                    incentive: Compact(entry(&Incentive::<T>::get(index), at).0),
                    consensus: Compact(entry(&Consensus::<T>::get(netuid), at).0),
                    trust: Compact(0),
                    validator_trust: Compact(entry(&ValidatorTrust::<T>::get(netuid), at)),
                    dividends: Compact(entry(&Dividends::<T>::get(netuid), at)),
                    last_update: Compact(entry(&LastUpdate::<T>::get(index), at)),
                    validator_permit: entry(&ValidatorPermit::<T>::get(netuid), at),
                    $(
                        $weights: compact(Weights::<T>::get(index, uid)),
                        $bonds: compact(Bonds::<T>::get(index, uid)),
                    )?
                    pruning_score: Compact(u16::MAX),
                })
            }
        }
    };
}

neuron!(
    /// A neuron with its weights and bonds.
    NeuronInfo, weights, bonds
);
neuron!(
    /// A neuron without its weights and bonds.
    NeuronInfoLite
);

fn entry<V: Default + Copy>(column: &[V], at: usize) -> V {
    column.get(at).copied().unwrap_or_default()
}

fn compact(row: Vec<(u16, u16)>) -> Vec<(Compact<u16>, Compact<u16>)> {
    row.into_iter()
        .map(|(uid, weight)| (Compact(uid), Compact(weight)))
        .collect()
}

impl<T: Config> Pallet<T> {
    /// Returns a neuron; `None` for a place that nobody holds.
    pub fn neuron(netuid: NetUid, uid: u16) -> Option<NeuronInfo> {
        NeuronInfo::read::<T>(netuid, uid)
    }

    /// Returns a neuron without weights; `None` for a place that nobody holds.
    pub fn neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite> {
        NeuronInfoLite::read::<T>(netuid, uid)
    }

    pub fn neurons(netuid: NetUid) -> Vec<NeuronInfo> {
        (0..SubnetworkN::<T>::get(netuid))
            .filter_map(|uid| Self::neuron(netuid, uid))
            .collect()
    }

    /// Returns a subnet's neurons without weights.
    pub fn neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite> {
        (0..SubnetworkN::<T>::get(netuid))
            .filter_map(|uid| Self::neuron_lite(netuid, uid))
            .collect()
    }
}

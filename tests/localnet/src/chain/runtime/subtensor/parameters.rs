//! Hyperparameters of a subnet: what sets them and the runtime APIs that show them.

use codec::{Compact, Decode, Encode};
use frame_support::ensure;
use scale_info::TypeInfo;
use sp_runtime::{AccountId32, DispatchError};

use super::{
    Active, ActivityCutoff, ActivityCutoffFactorMilli, BlockAtRegistration,
    CommitRevealWeightsEnabled, CommitRevealWeightsVersion, Config, Consensus, Dividends, Emission,
    EpochConsensus, Error, ImmunityPeriod, Incentive, IsNetworkMember, Kappa, Keys, LastUpdate,
    MaxAllowedUids, MaxAllowedValidators, MaxWeightsLimit, MechanismCountCurrent,
    MinAllowedWeights, NetworkRegisteredAt, NetworksAdded, Pallet, PendingEpochAt,
    RevealPeriodEpochs, Rho, StakeThreshold, StakeWeight, SubnetEpochConsensus, SubnetOwner,
    SubnetOwnerHotkey, SubnetworkN, Tempo, Uids, ValidatorPermit, ValidatorTrust, Weights,
    WeightsSetRateLimit, WeightsVersionKey,
};
use crate::chain::{
    config::{Hyperparameter, Hyperparameters, SubnetConfig},
    runtime::newtype::{MechId, NetUid, PerU16, TaoBalance},
};

/// A fixed-point number of 64 bits, half of them the fraction.
#[derive(Encode, Decode, TypeInfo, Clone, Debug)]
pub struct FixedI64 {
    pub bits: i64,
}

/// A fixed-point number of 128 bits, half of them the fraction.
#[derive(Encode, Decode, TypeInfo, Clone, Debug)]
pub struct FixedU128 {
    pub bits: u128,
}

/// A value of [`HyperparamEntry`].
#[derive(Encode, Decode, TypeInfo, Clone, Debug)]
pub enum HyperparamValue {
    Bool(bool),
    U16(Compact<u16>),
    U32(Compact<u32>),
    U64(Compact<u64>),
    U128(Compact<u128>),
    TaoBalance(Compact<TaoBalance>),
    I32F32(FixedI64),
    U64F64(FixedU128),
}

/// A hyperparameter by its name: the form of `get_subnet_hyperparams_v3`.
#[derive(Encode, Decode, TypeInfo, Clone, Debug)]
pub struct HyperparamEntry {
    pub name: Vec<u8>,
    pub value: HyperparamValue,
}

/// Declares the first two forms, of which the second has some more fields, and the third, which
/// is the second as a list.
macro_rules! hyperparameters {
    ($netuid:ident; $($field:ident: $kind:ident = $value:expr,)* ; $($more:ident: $more_kind:ident = $more_value:expr,)*) => {
        /// What `get_subnet_hyperparams` answers.
        #[derive(Encode, Decode, TypeInfo, Clone, Debug)]
        pub struct SubnetHyperparams {
            $(pub $field: hyperparameters!(@type $kind),)*
        }

        /// What `get_subnet_hyperparams_v2` answers.
        #[derive(Encode, Decode, TypeInfo, Clone, Debug)]
        pub struct SubnetHyperparamsV2 {
            $(pub $field: hyperparameters!(@type $kind),)*
            $(pub $more: hyperparameters!(@type $more_kind),)*
        }

        impl<T: Config> Pallet<T> {
            /// Returns the hyperparameters in their first form.
            pub fn hyperparameters($netuid: NetUid) -> Option<SubnetHyperparams> {
                NetworksAdded::<T>::get($netuid).then(|| SubnetHyperparams {
                    $($field: hyperparameters!(@value $kind, $value),)*
                })
            }

            /// Returns the hyperparameters in their second form.
            pub fn hyperparameters_v2($netuid: NetUid) -> Option<SubnetHyperparamsV2> {
                NetworksAdded::<T>::get($netuid).then(|| SubnetHyperparamsV2 {
                    $($field: hyperparameters!(@value $kind, $value),)*
                    $($more: hyperparameters!(@value $more_kind, $more_value),)*
                })
            }

            /// Returns the hyperparameters as a list.
            pub fn hyperparameters_v3($netuid: NetUid) -> Option<Vec<HyperparamEntry>> {
                NetworksAdded::<T>::get($netuid).then(|| vec![
                    $(HyperparamEntry {
                        name: stringify!($field).into(),
                        value: HyperparamValue::$kind(hyperparameters!(@value $kind, $value)),
                    },)*
                    $(HyperparamEntry {
                        name: stringify!($more).into(),
                        value: HyperparamValue::$more_kind(
                            hyperparameters!(@value $more_kind, $more_value)
                        ),
                    },)*
                ])
            }
        }
    };
    (@type Bool) => { bool };
    (@type U16) => { Compact<u16> };
    (@type U64) => { Compact<u64> };
    (@type TaoBalance) => { Compact<TaoBalance> };
    (@type I32F32) => { FixedI64 };
    (@value Bool, $value:expr) => { $value };
    (@value TaoBalance, $value:expr) => { Compact(TaoBalance($value)) };
    (@value I32F32, $value:expr) => { FixedI64 { bits: $value << 32 } };
    (@value $kind:ident, $value:expr) => { Compact($value) };
}

hyperparameters! { netuid;
    rho: U16 = Rho::<T>::get(netuid),
    kappa: U16 = Kappa::<T>::get(netuid),
    immunity_period: U16 = ImmunityPeriod::<T>::get(netuid),
    min_allowed_weights: U16 = MinAllowedWeights::<T>::get(netuid),
    max_weights_limit: U16 = MaxWeightsLimit::<T>::get(netuid),
    tempo: U16 = Tempo::<T>::get(netuid),
    min_difficulty: U64 = 10_000_000,
    max_difficulty: U64 = u64::MAX / 4,
    weights_version: U64 = WeightsVersionKey::<T>::get(netuid),
    weights_rate_limit: U64 = WeightsSetRateLimit::<T>::get(netuid),
    adjustment_interval: U16 = 100,
    activity_cutoff: U64 = u64::from(ActivityCutoff::<T>::get(netuid)),
    registration_allowed: Bool = true,
    target_regs_per_interval: U16 = 2,
    min_burn: TaoBalance = 500_000,
    max_burn: TaoBalance = 100_000_000_000,
    bonds_moving_avg: U64 = 900_000,
    max_regs_per_block: U16 = 1,
    serving_rate_limit: U64 = 50,
    max_validators: U16 = MaxAllowedValidators::<T>::get(netuid),
    adjustment_alpha: U64 = 0,
    difficulty: U64 = 10_000_000,
    commit_reveal_period: U64 = RevealPeriodEpochs::<T>::get(netuid),
    commit_reveal_weights_enabled: Bool = CommitRevealWeightsEnabled::<T>::get(netuid),
    alpha_high: U16 = 58_982,
    alpha_low: U16 = 45_875,
    liquid_alpha_enabled: Bool = false,
    ;
    alpha_sigmoid_steepness: I32F32 = 1000_i64,
    yuma_version: U16 = 2,
    subnet_is_active: Bool = true,
    transfers_enabled: Bool = true,
    bonds_reset_enabled: Bool = false,
    user_liquidity_enabled: Bool = false,
}

impl<T: Config> Pallet<T> {
    /// Removes a subnet with its neurons.
    pub fn remove_subnet(netuid: NetUid) {
        for uid in 0..SubnetworkN::<T>::get(netuid) {
            let hotkey = Keys::<T>::take(netuid, uid);
            Uids::<T>::remove(netuid, &hotkey);
            IsNetworkMember::<T>::remove(&hotkey, netuid);
            BlockAtRegistration::<T>::remove(netuid, uid);
            Weights::<T>::remove(netuid.index(MechId(0)), uid);
        }
        SubnetworkN::<T>::remove(netuid);
        NetworksAdded::<T>::remove(netuid);
        SubnetOwner::<T>::remove(netuid);
        SubnetOwnerHotkey::<T>::remove(netuid);
        LastUpdate::<T>::remove(netuid.index(MechId(0)));
        Incentive::<T>::remove(netuid.index(MechId(0)));
        Active::<T>::remove(netuid);
        ValidatorPermit::<T>::remove(netuid);
        Consensus::<T>::remove(netuid);
        Dividends::<T>::remove(netuid);
        Emission::<T>::remove(netuid);
        ValidatorTrust::<T>::remove(netuid);
        StakeWeight::<T>::remove(netuid);
    }

    /// Makes a subnet and registers its first neurons.
    pub fn add_subnet(subnet: &SubnetConfig) -> Result<(), DispatchError> {
        let netuid = NetUid(subnet.netuid);
        NetworksAdded::<T>::insert(netuid, true);
        NetworkRegisteredAt::<T>::insert(netuid, Self::block());
        if let Some(hotkey) = subnet.owner_hotkey {
            SubnetOwnerHotkey::<T>::insert(netuid, AccountId32::new(hotkey));
            SubnetOwner::<T>::insert(netuid, AccountId32::new(hotkey));
        }
        Tempo::<T>::insert(netuid, subnet.tempo);
        let Hyperparameters {
            weights_version,
            weights_rate_limit,
            min_allowed_weights,
            max_weights_limit,
            immunity_period,
            activity_cutoff,
            max_uids,
            max_validators,
            kappa,
            commit_reveal_weights_enabled,
            commit_reveal_period,
            mechanism_count,
        } = subnet.hyperparameters;
        WeightsVersionKey::<T>::insert(netuid, weights_version);
        WeightsSetRateLimit::<T>::insert(netuid, weights_rate_limit);
        MinAllowedWeights::<T>::insert(netuid, min_allowed_weights);
        MaxWeightsLimit::<T>::insert(netuid, max_weights_limit);
        ImmunityPeriod::<T>::insert(netuid, immunity_period);
        ActivityCutoff::<T>::insert(netuid, activity_cutoff);
        MaxAllowedUids::<T>::insert(netuid, max_uids);
        MaxAllowedValidators::<T>::insert(netuid, max_validators);
        Kappa::<T>::insert(netuid, kappa);
        CommitRevealWeightsEnabled::<T>::insert(netuid, commit_reveal_weights_enabled);
        RevealPeriodEpochs::<T>::insert(netuid, commit_reveal_period);
        Self::set_mechanism_count(netuid, mechanism_count);
        for neuron in &subnet.neurons {
            Self::register(netuid, neuron)?;
        }
        Ok(())
    }

    /// Changes one hyperparameter; a value too large for its type becomes the largest.
    pub fn set_hyperparameter(
        netuid: NetUid,
        name: Hyperparameter,
        value: u64,
    ) -> Result<(), DispatchError> {
        ensure!(NetworksAdded::<T>::get(netuid), Error::<T>::SubnetNotExists);
        let short = u16::try_from(value).unwrap_or(u16::MAX);
        match name {
            Hyperparameter::Tempo => Tempo::<T>::insert(netuid, short),
            Hyperparameter::WeightsVersion => WeightsVersionKey::<T>::insert(netuid, value),
            Hyperparameter::WeightsRateLimit => WeightsSetRateLimit::<T>::insert(netuid, value),
            Hyperparameter::MinAllowedWeights => MinAllowedWeights::<T>::insert(netuid, short),
            Hyperparameter::MaxWeightsLimit => MaxWeightsLimit::<T>::insert(netuid, short),
            Hyperparameter::ImmunityPeriod => ImmunityPeriod::<T>::insert(netuid, short),
            Hyperparameter::ActivityCutoff => ActivityCutoff::<T>::insert(netuid, short),
            Hyperparameter::MaxUids => MaxAllowedUids::<T>::insert(netuid, short),
            Hyperparameter::MaxValidators => MaxAllowedValidators::<T>::insert(netuid, short),
            Hyperparameter::Kappa => Kappa::<T>::insert(netuid, short),
            Hyperparameter::CommitRevealWeightsEnabled => {
                CommitRevealWeightsEnabled::<T>::insert(netuid, value != 0);
            }
            Hyperparameter::CommitRevealPeriod => RevealPeriodEpochs::<T>::insert(netuid, value),
            Hyperparameter::MechanismCount => {
                Self::set_mechanism_count(netuid, u8::try_from(value).unwrap_or(15));
            }
            Hyperparameter::StakeThreshold => StakeThreshold::<T>::put(value),
            Hyperparameter::CommitRevealVersion => CommitRevealWeightsVersion::<T>::put(short),
            Hyperparameter::ActivityCutoffFactor => {
                let factor = u32::try_from(value).unwrap_or(u32::MAX);
                ActivityCutoffFactorMilli::<T>::insert(netuid, factor);
            }
            Hyperparameter::NullConsensus => {
                let consensus = if value == 0 {
                    EpochConsensus::Yuma
                } else {
                    EpochConsensus::Null
                };
                SubnetEpochConsensus::<T>::insert(netuid, consensus);
            }
            Hyperparameter::PendingEpochAt => PendingEpochAt::<T>::insert(netuid, value),
        }
        Ok(())
    }

    /// Sets how many mechanisms there are, at most 15, giving new ones their columns.
    fn set_mechanism_count(netuid: NetUid, count: u8) {
        let count = count.clamp(1, 15);
        let places = usize::from(SubnetworkN::<T>::get(netuid));
        for mecid in (0..count).map(MechId) {
            let index = netuid.index(mecid);
            LastUpdate::<T>::mutate(index, |column| column.resize(places, 0));
            Incentive::<T>::mutate(index, |column| column.resize(places, PerU16(0)));
        }
        MechanismCountCurrent::<T>::insert(netuid, MechId(count));
    }
}

//! Pallet `SubtensorModule`: subnets, their neurons, weights and epochs.

pub mod epoch;
pub mod metagraph;
pub mod neurons;
pub mod parameters;
pub mod registration;
pub mod timelock;
pub mod weights;

pub use pallet::*;

#[frame_support::pallet]
pub mod pallet {
    use std::collections::VecDeque;

    use frame_support::{
        dispatch::Pays,
        pallet_prelude::*,
        traits::{ConstBool, ConstU16, ConstU64},
    };
    use frame_system::pallet_prelude::*;
    use sp_core::H256;
    use sp_runtime::AccountId32;

    use crate::chain::runtime::{
        drand,
        newtype::{AlphaBalance, MechId, NetUid, NetUidStorageIndex, PerU16},
    };

    /// A timelocked commit: who, in which block, what, and the drand round that opens it.
    pub type TimelockedCommit = (AccountId32, u64, BoundedVec<u8, ConstU32<5000>>, u64);

    /// The default account of a place on a subnet that nobody holds: all zeroes.
    pub struct NoAccount;
    impl Get<AccountId32> for NoAccount {
        fn get() -> AccountId32 {
            AccountId32::new([0; 32])
        }
    }

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId32, RuntimeEvent: From<Event<Self>>>
        + drand::Config
    {
        /// Blocks between epochs of a new subnet.
        #[pallet::constant]
        type InitialTempo: Get<u16>;
    }

    // Who is on which subnet.
    #[pallet::storage]
    pub type NetworksAdded<T> = StorageMap<_, Identity, NetUid, bool, ValueQuery>;
    #[pallet::storage]
    pub type NetworkRegisteredAt<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type SubnetworkN<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery>;
    #[pallet::storage]
    pub type SubnetOwner<T> = StorageMap<_, Identity, NetUid, AccountId32, ValueQuery, NoAccount>;
    #[pallet::storage]
    pub type SubnetOwnerHotkey<T> =
        StorageMap<_, Identity, NetUid, AccountId32, ValueQuery, NoAccount>;
    #[pallet::storage]
    pub type Keys<T> =
        StorageDoubleMap<_, Identity, NetUid, Identity, u16, AccountId32, ValueQuery, NoAccount>;
    #[pallet::storage]
    pub type Uids<T> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, AccountId32, u16, OptionQuery>;
    #[pallet::storage]
    pub type IsNetworkMember<T> =
        StorageDoubleMap<_, Blake2_128Concat, AccountId32, Identity, NetUid, bool, ValueQuery>;
    #[pallet::storage]
    pub type Owner<T> =
        StorageMap<_, Blake2_128Concat, AccountId32, AccountId32, ValueQuery, NoAccount>;
    #[pallet::storage]
    pub type BlockAtRegistration<T> =
        StorageDoubleMap<_, Identity, NetUid, Identity, u16, u64, ValueQuery>;

    // Stake.
    #[pallet::storage]
    pub type TotalHotkeyAlpha<T> = StorageDoubleMap<
        _,
        Blake2_128Concat,
        AccountId32,
        Identity,
        NetUid,
        AlphaBalance,
        ValueQuery,
    >;
    #[pallet::storage]
    pub type ParentKeys<T> = StorageDoubleMap<
        _,
        Blake2_128Concat,
        AccountId32,
        Identity,
        NetUid,
        Vec<(u64, AccountId32)>,
        ValueQuery,
    >;
    #[pallet::storage]
    pub type ChildKeys<T> = StorageDoubleMap<
        _,
        Blake2_128Concat,
        AccountId32,
        Identity,
        NetUid,
        Vec<(u64, AccountId32)>,
        ValueQuery,
    >;
    #[pallet::storage]
    pub type TaoWeight<T> = StorageValue<_, u64, ValueQuery, ConstU64<971_718_665_099_567_868>>;
    #[pallet::storage]
    pub type StakeThreshold<T> = StorageValue<_, u64, ValueQuery>;

    // What each neuron said and got, one entry for each uid.
    #[pallet::storage]
    pub type StakeWeight<T> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;
    #[pallet::storage]
    pub type Active<T> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;
    #[pallet::storage]
    pub type Consensus<T> = StorageMap<_, Identity, NetUid, Vec<PerU16>, ValueQuery>;
    #[pallet::storage]
    pub type Incentive<T> = StorageMap<_, Identity, NetUidStorageIndex, Vec<PerU16>, ValueQuery>;
    #[pallet::storage]
    pub type Dividends<T> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;
    #[pallet::storage]
    pub type Emission<T> = StorageMap<_, Identity, NetUid, Vec<AlphaBalance>, ValueQuery>;
    #[pallet::storage]
    pub type LastUpdate<T> = StorageMap<_, Identity, NetUidStorageIndex, Vec<u64>, ValueQuery>;
    #[pallet::storage]
    pub type ValidatorTrust<T> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;
    #[pallet::storage]
    pub type ValidatorPermit<T> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;
    #[pallet::storage]
    pub type Weights<T> = StorageDoubleMap<
        _,
        Identity,
        NetUidStorageIndex,
        Identity,
        u16,
        Vec<(u16, u16)>,
        ValueQuery,
    >;
    #[pallet::storage]
    pub type Bonds<T> = StorageDoubleMap<
        _,
        Identity,
        NetUidStorageIndex,
        Identity,
        u16,
        Vec<(u16, u16)>,
        ValueQuery,
    >;

    // Hyperparameters.
    #[pallet::storage]
    pub type Tempo<T: Config> =
        StorageMap<_, Identity, NetUid, u16, ValueQuery, <T as Config>::InitialTempo>;
    #[pallet::storage]
    pub type MaxAllowedUids<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<256>>;
    #[pallet::storage]
    pub type MaxAllowedValidators<T> =
        StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<128>>;
    #[pallet::storage]
    pub type ImmunityPeriod<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<4096>>;
    #[pallet::storage]
    pub type ActivityCutoff<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<5000>>;
    #[pallet::storage]
    pub type Kappa<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<32_767>>;
    #[pallet::storage]
    pub type Rho<T> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<10>>;
    #[pallet::storage]
    pub type WeightsVersionKey<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type WeightsSetRateLimit<T> =
        StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<100>>;
    #[pallet::storage]
    pub type MinAllowedWeights<T> =
        StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<1024>>;
    #[pallet::storage]
    pub type MaxWeightsLimit<T> =
        StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<65_535>>;
    #[pallet::storage]
    pub type MechanismCountCurrent<T> =
        StorageMap<_, Twox64Concat, NetUid, MechId, ValueQuery, OneMechanism>;
    #[pallet::storage]
    pub type CommitRevealWeightsEnabled<T> =
        StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;
    #[pallet::storage]
    pub type RevealPeriodEpochs<T> =
        StorageMap<_, Twox64Concat, NetUid, u64, ValueQuery, ConstU64<1>>;
    #[pallet::storage]
    pub type CommitRevealWeightsVersion<T> = StorageValue<_, u16, ValueQuery, ConstU16<4>>;

    /// Thousandths of the tempo after which a validator without weights no longer counts; where it
    /// is 0, [`ActivityCutoff`] holds.
    #[pallet::storage]
    pub type ActivityCutoffFactorMilli<T> = StorageMap<_, Identity, NetUid, u32, ValueQuery>;
    #[pallet::storage]
    pub type SubnetEpochConsensus<T> = StorageMap<_, Identity, NetUid, EpochConsensus, ValueQuery>;

    // Epochs.
    #[pallet::storage]
    pub type LastEpochBlock<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type PendingEpochAt<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type SubnetEpochIndex<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type BlocksSinceLastStep<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type LastMechansimStepBlock<T> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;
    #[pallet::storage]
    pub type TimelockedWeightCommits<T> = StorageDoubleMap<
        _,
        Twox64Concat,
        NetUidStorageIndex,
        Twox64Concat,
        u64,
        VecDeque<TimelockedCommit>,
        ValueQuery,
    >;

    /// Whose weights an epoch goes by.
    #[derive(
        Encode,
        Decode,
        DecodeWithMemTracking,
        MaxEncodedLen,
        TypeInfo,
        Clone,
        Copy,
        Debug,
        Default,
        PartialEq,
        Eq,
    )]
    pub enum EpochConsensus {
        #[default]
        Yuma,
        /// Those of the validator with the largest stake alone.
        Null,
    }

    /// A new subnet has the main mechanism only.
    pub struct OneMechanism;
    impl Get<MechId> for OneMechanism {
        fn get() -> MechId {
            MechId(1)
        }
    }

    #[pallet::event]
    #[pallet::generate_deposit(pub fn deposit_event)]
    pub enum Event<T: Config> {
        #[codec(index = 5)]
        WeightsSet(NetUidStorageIndex, u16),
        #[codec(index = 6)]
        NeuronRegistered(NetUid, u16, AccountId32),
        #[codec(index = 107)]
        TimelockedWeightsCommitted(AccountId32, NetUidStorageIndex, H256, u64),
        #[codec(index = 108)]
        TimelockedWeightsRevealed(NetUidStorageIndex, AccountId32),
    }

    #[pallet::error]
    pub enum Error<T> {
        #[codec(index = 4)]
        HotKeyNotRegisteredInSubNet,
        #[codec(index = 10)]
        NotEnoughStakeToSetWeights,
        #[codec(index = 15)]
        NeuronNoValidatorPermit,
        #[codec(index = 16)]
        WeightVecNotEqualSize,
        #[codec(index = 17)]
        DuplicateUids,
        #[codec(index = 18)]
        UidVecContainInvalidOne,
        #[codec(index = 19)]
        WeightVecLengthIsLow,
        #[codec(index = 21)]
        HotKeyAlreadyRegisteredInSubNet,
        #[codec(index = 27)]
        MaxWeightExceeded,
        #[codec(index = 29)]
        SettingWeightsTooFast,
        #[codec(index = 30)]
        IncorrectWeightVersionKey,
        #[codec(index = 32)]
        UidsLengthExceedUidsInSubNet,
        #[codec(index = 47)]
        CanNotSetRootNetworkWeights,
        #[codec(index = 48)]
        NoNeuronIdAvailable,
        #[codec(index = 53)]
        CommitRevealEnabled,
        #[codec(index = 54)]
        CommitRevealDisabled,
        #[codec(index = 74)]
        MechanismDoesNotExist,
        #[codec(index = 76)]
        SubnetNotExists,
        #[codec(index = 77)]
        TooManyUnrevealedCommits,
        #[codec(index = 81)]
        CommittingWeightsTooFast,
        #[codec(index = 110)]
        IncorrectCommitRevealVersion,
        #[codec(index = 111)]
        InvalidRevealRound,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_: BlockNumberFor<T>) -> Weight {
            Self::step();
            Weight::zero()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Sets the signer's weights on a subnet's main mechanism.
        #[pallet::call_index(0)]
        #[pallet::weight((Weight::from_parts(15_540_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::set_weights_now(&who, netuid, MechId(0), &dests, &weights, version_key)
        }

        /// Sets the signer's weights on one mechanism of a subnet.
        #[pallet::call_index(119)]
        #[pallet::weight((Weight::from_parts(15_540_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::set_weights_now(&who, netuid, mecid, &dests, &weights, version_key)
        }

        /// Commits weights that a drand round will open.
        #[pallet::call_index(113)]
        #[pallet::weight((Weight::from_parts(64_530_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            commit: BoundedVec<u8, ConstU32<5000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            let version = commit_reveal_version;
            Self::commit_weights(&who, netuid, MechId(0), commit, reveal_round, version)
        }

        /// Commits weights for one mechanism of a subnet that a drand round will open.
        #[pallet::call_index(118)]
        #[pallet::weight((Weight::from_parts(64_530_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit: BoundedVec<u8, ConstU32<5000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            let version = commit_reveal_version;
            Self::commit_weights(&who, netuid, mecid, commit, reveal_round, version)
        }

        /// Commits weights for one mechanism, always in version 4.
        #[pallet::call_index(117)]
        #[pallet::weight((Weight::from_parts(64_530_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn commit_crv3_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit: BoundedVec<u8, ConstU32<5000>>,
            reveal_round: u64,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            Self::commit_weights(&who, netuid, mecid, commit, reveal_round, 4)
        }
    }
}

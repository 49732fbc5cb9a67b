//! Runtime API `SubnetInfoRuntimeApi`: a subnet as a whole, entire or by chosen columns.

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use super::{
    Active, ActivityCutoff, BlockAtRegistration, BlocksSinceLastStep, CommitRevealWeightsEnabled,
    Config, Consensus, Dividends, Emission, ImmunityPeriod, Incentive, Kappa, Keys,
    LastMechansimStepBlock, LastUpdate, MaxAllowedUids, MaxAllowedValidators, MaxWeightsLimit,
    MinAllowedWeights, NetworkRegisteredAt, NetworksAdded, Owner, Pallet, RevealPeriodEpochs, Rho,
    SubnetOwner, SubnetOwnerHotkey, SubnetworkN, Tempo, ValidatorPermit, WeightsSetRateLimit,
    WeightsVersionKey, neurons::AxonInfo,
};
use crate::chain::runtime::{
    commitments,
    newtype::{AlphaBalance, MechId, NetUid, TaoBalance},
};

/// A fixed-point number of 128 bits.
#[derive(Encode, Decode, TypeInfo, Clone, Debug, Default)]
pub struct FixedI128 {
    pub bits: i128,
}

/// How a subnet calls itself; here none does.
#[derive(Encode, Decode, TypeInfo, Clone, Debug, Default)]
pub struct SubnetIdentityV3 {
    pub subnet_name: Vec<u8>,
    pub github_repo: Vec<u8>,
    pub subnet_contact: Vec<u8>,
    pub subnet_url: Vec<u8>,
    pub discord: Vec<u8>,
    pub description: Vec<u8>,
    pub logo_url: Vec<u8>,
    pub additional: Vec<u8>,
}

/// How a coldkey calls itself; here none does.
#[derive(Encode, Decode, TypeInfo, Clone, Debug, Default)]
pub struct ChainIdentityV2 {
    pub name: Vec<u8>,
    pub url: Vec<u8>,
    pub github_repo: Vec<u8>,
    pub image: Vec<u8>,
    pub discord: Vec<u8>,
    pub description: Vec<u8>,
    pub additional: Vec<u8>,
}

/// The subnet and mechanism that a metagraph is of, and its neurons' hotkeys.
struct View {
    netuid: NetUid,
    mecid: MechId,
    hotkeys: Vec<AccountId32>,
}

/// Declares both forms of the metagraph from one list. A field's number is what chooses it.
macro_rules! metagraph {
    (
        <$config:ident> $view:ident;
        $($number:literal $field:ident: $type:ty = $value:expr,)*
        ; $($more_number:literal $more:ident: $more_type:ty = $more_value:expr,)*
    ) => {
        /// What `get_metagraph` answers.
        #[derive(Encode, Decode, TypeInfo, Clone, Debug)]
        pub struct Metagraph {
            pub netuid: Compact<NetUid>,
            $(pub $field: $type,)*
        }

        /// What `get_selective_metagraph` answers: the chosen fields.
        #[derive(Encode, Decode, TypeInfo, Clone, Debug)]
        pub struct SelectiveMetagraph {
            pub netuid: Compact<NetUid>,
            $(pub $field: Option<$type>,)*
            $(pub $more: Option<$more_type>,)*
        }

        impl Metagraph {
            fn read<$config: Config>($view: &View) -> Self {
                Self { netuid: Compact($view.netuid), $($field: $value,)* }
            }
        }

        impl SelectiveMetagraph {
            fn read<$config: Config>($view: &View, chosen: &[u16]) -> Self {
                Self {
                    netuid: Compact($view.netuid),
                    $($field: chosen.contains(&$number).then(|| $value),)*
                    $($more: chosen.contains(&$more_number).then(|| $more_value),)*
                }
            }
        }
    };
}

metagraph! { <T> view;
    1 name: Vec<Compact<u8>> = text("localnet"),
    2 symbol: Vec<Compact<u8>> = text("\u{3b1}"),
    3 identity: Option<SubnetIdentityV3> = None,
    4 network_registered_at: Compact<u64> = Compact(NetworkRegisteredAt::<T>::get(view.netuid)),
    5 owner_hotkey: AccountId32 = SubnetOwnerHotkey::<T>::get(view.netuid),
    6 owner_coldkey: AccountId32 = SubnetOwner::<T>::get(view.netuid),
    7 block: Compact<u64> = Compact(Pallet::<T>::block()),
    8 tempo: Compact<u16> = Compact(Tempo::<T>::get(view.netuid)),
    9 last_step: Compact<u64> = Compact(LastMechansimStepBlock::<T>::get(view.netuid)),
    10 blocks_since_last_step: Compact<u64> = Compact(BlocksSinceLastStep::<T>::get(view.netuid)),
    11 subnet_emission: Compact<TaoBalance> = Compact(TaoBalance(0)),
    12 alpha_in: Compact<AlphaBalance> = Compact(AlphaBalance(0)),
    13 alpha_out: Compact<AlphaBalance> = Compact(AlphaBalance(0)),
    14 tao_in: Compact<TaoBalance> = Compact(TaoBalance(0)),
    15 alpha_out_emission: Compact<AlphaBalance> = Compact(AlphaBalance(0)),
    16 alpha_in_emission: Compact<AlphaBalance> = Compact(AlphaBalance(0)),
    17 tao_in_emission: Compact<TaoBalance> = Compact(TaoBalance(0)),
    18 pending_alpha_emission: Compact<AlphaBalance> = Compact(AlphaBalance(0)),
    19 pending_root_emission: Compact<TaoBalance> = Compact(TaoBalance(0)),
    20 subnet_volume: Compact<u128> = Compact(0),
    21 moving_price: FixedI128 = FixedI128::default(),
    22 rho: Compact<u16> = Compact(Rho::<T>::get(view.netuid)),
    23 kappa: Compact<u16> = Compact(Kappa::<T>::get(view.netuid)),
    24 min_allowed_weights: Compact<u16> = Compact(MinAllowedWeights::<T>::get(view.netuid)),
    25 max_weights_limit: Compact<u16> = Compact(MaxWeightsLimit::<T>::get(view.netuid)),
    26 weights_version: Compact<u64> = Compact(WeightsVersionKey::<T>::get(view.netuid)),
    27 weights_rate_limit: Compact<u64> = Compact(WeightsSetRateLimit::<T>::get(view.netuid)),
    28 activity_cutoff: Compact<u64> = Compact(u64::from(ActivityCutoff::<T>::get(view.netuid))),
    29 max_validators: Compact<u16> = Compact(MaxAllowedValidators::<T>::get(view.netuid)),
    30 num_uids: Compact<u16> = Compact(SubnetworkN::<T>::get(view.netuid)),
    31 max_uids: Compact<u16> = Compact(MaxAllowedUids::<T>::get(view.netuid)),
    32 burn: Compact<TaoBalance> = Compact(TaoBalance(100_000_000)),
    33 difficulty: Compact<u64> = Compact(10_000_000),
    34 registration_allowed: bool = true,
    35 pow_registration_allowed: bool = false,
    36 immunity_period: Compact<u16> = Compact(ImmunityPeriod::<T>::get(view.netuid)),
    37 min_difficulty: Compact<u64> = Compact(10_000_000),
    38 max_difficulty: Compact<u64> = Compact(u64::MAX / 4),
    39 min_burn: Compact<TaoBalance> = Compact(TaoBalance(500_000)),
    40 max_burn: Compact<TaoBalance> = Compact(TaoBalance(100_000_000_000)),
    41 adjustment_alpha: Compact<u64> = Compact(0),
    42 adjustment_interval: Compact<u16> = Compact(100),
    43 target_regs_per_interval: Compact<u16> = Compact(2),
    44 max_regs_per_block: Compact<u16> = Compact(1),
    45 serving_rate_limit: Compact<u64> = Compact(50),
    46 commit_reveal_weights_enabled: bool = CommitRevealWeightsEnabled::<T>::get(view.netuid),
    47 commit_reveal_period: Compact<u64> = Compact(RevealPeriodEpochs::<T>::get(view.netuid)),
    48 liquid_alpha_enabled: bool = false,
    49 alpha_high: Compact<u16> = Compact(58_982),
    50 alpha_low: Compact<u16> = Compact(45_875),
    51 bonds_moving_avg: Compact<u64> = Compact(900_000),
    52 hotkeys: Vec<AccountId32> = view.hotkeys.clone(),
    53 coldkeys: Vec<AccountId32> = view.hotkeys.iter().map(Owner::<T>::get).collect(),
    54 identities: Vec<Option<ChainIdentityV2>> = vec![None; view.hotkeys.len()],
    55 axons: Vec<AxonInfo> = vec![AxonInfo::default(); view.hotkeys.len()],
    56 active: Vec<bool> = Active::<T>::get(view.netuid),
    57 validator_permit: Vec<bool> = ValidatorPermit::<T>::get(view.netuid),
    58 pruning_score: Vec<Compact<u16>> = vec![Compact(u16::MAX); view.hotkeys.len()],
    59 last_update: Vec<Compact<u64>> = compact(LastUpdate::<T>::get(view.netuid.index(view.mecid))),
    60 emission: Vec<Compact<AlphaBalance>> = compact(Emission::<T>::get(view.netuid)),
    61 dividends: Vec<Compact<u16>> = compact(Dividends::<T>::get(view.netuid)),
    62 incentives: Vec<Compact<u16>> =
        Incentive::<T>::get(view.netuid.index(view.mecid)).iter().map(|v| Compact(v.0)).collect(),
    63 consensus: Vec<Compact<u16>> =
        Consensus::<T>::get(view.netuid).iter().map(|v| Compact(v.0)).collect(),
    64 trust: Vec<Compact<u16>> = vec![Compact(0); view.hotkeys.len()],
    65 rank: Vec<Compact<u16>> = vec![Compact(0); view.hotkeys.len()],
    66 block_at_registration: Vec<Compact<u64>> = (0..SubnetworkN::<T>::get(view.netuid))
        .map(|uid| Compact(BlockAtRegistration::<T>::get(view.netuid, uid)))
        .collect(),
    67 alpha_stake: Vec<Compact<AlphaBalance>> =
        view.stakes::<T, _>(|stake| Compact(AlphaBalance(stake.alpha))),
    68 tao_stake: Vec<Compact<TaoBalance>> =
        view.stakes::<T, _>(|stake| Compact(TaoBalance(stake.total - stake.alpha))),
    69 total_stake: Vec<Compact<TaoBalance>> =
        view.stakes::<T, _>(|stake| Compact(TaoBalance(stake.total))),
    70 tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)> = Vec::new(),
    71 alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)> = Vec::new(),
    ;
    72 validators: Vec<Compact<u16>> = ValidatorPermit::<T>::get(view.netuid)
        .iter()
        .zip(0..)
        .filter(|(permit, _)| **permit)
        .map(|(_, uid)| Compact(uid))
        .collect(),
    73 commitments: Vec<(AccountId32, Vec<Compact<u8>>)> =
        commitments::CommitmentOf::<super::super::Runtime>::iter_prefix(view.netuid)
            .map(|(who, record)| (who, bytes(&record.info.encode())))
            .collect(),
}

impl View {
    fn stakes<T: Config, V>(&self, each: impl Fn(super::weights::Stake) -> V) -> Vec<V> {
        let stake = |hotkey| each(Pallet::<T>::stake_of(self.netuid, hotkey));
        self.hotkeys.iter().map(stake).collect()
    }
}

fn text(text: &str) -> Vec<Compact<u8>> {
    bytes(text.as_bytes())
}

fn bytes(bytes: &[u8]) -> Vec<Compact<u8>> {
    bytes.iter().copied().map(Compact).collect()
}

fn compact<V>(column: Vec<V>) -> Vec<Compact<V>> {
    column.into_iter().map(Compact).collect()
}

impl<T: Config> Pallet<T> {
    fn view(netuid: NetUid, mecid: MechId) -> Option<View> {
        (NetworksAdded::<T>::get(netuid) && Self::ensure_mechanism(netuid, mecid).is_ok()).then(
            || View {
                netuid,
                mecid,
                hotkeys: (0..SubnetworkN::<T>::get(netuid))
                    .map(|uid| Keys::<T>::get(netuid, uid))
                    .collect(),
            },
        )
    }

    /// Returns a whole metagraph; `None` where there is no such mechanism.
    pub fn metagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph> {
        Self::view(netuid, mecid).map(|view| Metagraph::read::<T>(&view))
    }

    /// Returns the chosen fields of a metagraph; `None` where there is no such mechanism.
    pub fn selective_metagraph(
        netuid: NetUid,
        mecid: MechId,
        chosen: &[u16],
    ) -> Option<SelectiveMetagraph> {
        Self::view(netuid, mecid).map(|view| SelectiveMetagraph::read::<T>(&view, chosen))
    }
}

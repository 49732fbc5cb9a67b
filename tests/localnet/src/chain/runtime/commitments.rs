//! Pallet `Commitments`: a short record which each neuron keeps on the chain.

use codec::{Decode, DecodeWithMemTracking, Encode, Input, MaxEncodedLen, Output};
use frame_support::{BoundedVec, traits::ConstU32};
use scale_info::{
    Path, Type, TypeInfo,
    build::{FieldBuilder, Fields, Variants},
    form::MetaForm,
};

pub use pallet::*;

use super::{newtype::NetUid, subtensor};

pub type MaxFields = ConstU32<3>;

/// One field of a commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    /// At most 128 bytes; their number is in the variant: `Raw0` to `Raw128`.
    Raw(BoundedVec<u8, ConstU32<128>>),
    BlakeTwo256([u8; 32]),
    Sha256([u8; 32]),
    Keccak256([u8; 32]),
    ShaThree256([u8; 32]),
    TimelockEncrypted {
        encrypted: BoundedVec<u8, ConstU32<1024>>,
        reveal_round: u64,
    },
    ResetBondsFlag,
    BigRaw(BoundedVec<u8, ConstU32<512>>),
}

impl Data {
    /// Returns the space it takes, in bytes.
    fn space(&self) -> u64 {
        match self {
            Self::None | Self::ResetBondsFlag => 0,
            Self::Raw(bytes) => bytes.len() as u64,
            Self::TimelockEncrypted { encrypted, .. } => encrypted.len() as u64,
            Self::BigRaw(bytes) => bytes.len() as u64,
            _ => 32,
        }
    }
}

impl Encode for Data {
    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        match self {
            Self::None => out.push_byte(0),
            Self::Raw(bytes) => {
                out.push_byte(bytes.len() as u8 + 1);
                out.write(bytes);
            }
            Self::BlakeTwo256(hash) => (130_u8, hash).encode_to(out),
            Self::Sha256(hash) => (131_u8, hash).encode_to(out),
            Self::Keccak256(hash) => (132_u8, hash).encode_to(out),
            Self::ShaThree256(hash) => (133_u8, hash).encode_to(out),
            Self::TimelockEncrypted {
                encrypted,
                reveal_round,
            } => {
                (134_u8, encrypted, reveal_round).encode_to(out);
            }
            Self::ResetBondsFlag => out.push_byte(135),
            Self::BigRaw(bytes) => (136_u8, bytes).encode_to(out),
        }
    }
}

impl codec::EncodeLike for Data {}

impl Decode for Data {
    fn decode<I: Input>(input: &mut I) -> Result<Self, codec::Error> {
        Ok(match input.read_byte()? {
            0 => Self::None,
            tag @ 1..=129 => {
                let mut bytes = vec![0; usize::from(tag) - 1];
                input.read(&mut bytes)?;
                Self::Raw(BoundedVec::truncate_from(bytes))
            }
            130 => Self::BlakeTwo256(Decode::decode(input)?),
            131 => Self::Sha256(Decode::decode(input)?),
            132 => Self::Keccak256(Decode::decode(input)?),
            133 => Self::ShaThree256(Decode::decode(input)?),
            134 => Self::TimelockEncrypted {
                encrypted: Decode::decode(input)?,
                reveal_round: Decode::decode(input)?,
            },
            135 => Self::ResetBondsFlag,
            136 => Self::BigRaw(Decode::decode(input)?),
            _ => return Err("no such kind of commitment data".into()),
        })
    }
}

impl DecodeWithMemTracking for Data {}

impl MaxEncodedLen for Data {
    fn max_encoded_len() -> usize {
        1 + 2 + 1024 + 8
    }
}

/// Adds the variants `Raw0` to `Raw128`, each an array of another length.
macro_rules! raw_variants {
    ($variants:expr, $($length:literal)*) => {
        $variants$(.variant(concat!("Raw", $length), |variant| {
            let field = Fields::unnamed().field(FieldBuilder::<MetaForm, _>::ty::<[u8; $length]>);
            variant.index($length + 1).fields(field)
        }))*
    };
}

impl TypeInfo for Data {
    type Identity = Self;

    fn type_info() -> Type {
        let variants = Variants::new().variant("None", |variant| variant.index(0));
        let mut variants = raw_variants!(variants,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60
            61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87 88 89
            90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107 108 109 110 111 112 113
            114 115 116 117 118 119 120 121 122 123 124 125 126 127 128);
        for (index, name) in (130..).zip(["BlakeTwo256", "Sha256", "Keccak256", "ShaThree256"]) {
            variants = variants.variant(name, |variant| {
                variant
                    .index(index)
                    .fields(Fields::unnamed().field(FieldBuilder::<MetaForm, _>::ty::<[u8; 32]>))
            });
        }
        let variants = variants
            .variant("TimelockEncrypted", |variant| {
                variant.index(134).fields(
                    Fields::named()
                        .field(|f| f.name("encrypted").ty::<BoundedVec<u8, ConstU32<1024>>>())
                        .field(|f| f.name("reveal_round").ty::<u64>()),
                )
            })
            .variant("ResetBondsFlag", |variant| variant.index(135))
            .variant("BigRaw", |variant| {
                variant.index(136).fields(
                    Fields::unnamed()
                        .field(FieldBuilder::<MetaForm, _>::ty::<BoundedVec<u8, ConstU32<512>>>),
                )
            });
        Type::builder()
            .path(Path::new("Data", "pallet_commitments::types"))
            .variant(variants)
    }
}

#[derive(
    Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo, Clone, Debug, PartialEq, Eq,
)]
pub struct CommitmentInfo {
    pub fields: BoundedVec<Data, MaxFields>,
}

#[derive(
    Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo, Clone, Debug, PartialEq, Eq,
)]
pub struct Registration {
    pub deposit: u64,
    /// Block of the last `set_commitment`.
    pub block: u32,
    pub info: CommitmentInfo,
}

/// Space used in an epoch.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
pub struct UsageTracker {
    pub last_epoch: u64,
    pub used_space: u64,
}

/// Appends a revealed commitment; the chain keeps the last ten of a hotkey.
pub fn reveal<T: Config>(netuid: NetUid, who: &sp_runtime::AccountId32, text: Vec<u8>) {
    let block = subtensor::Pallet::<T>::block();
    // The chain keeps it as it was sealed: encoded, with its length before it.
    let record = text.encode();
    RevealedCommitments::<T>::mutate(netuid, who, |revealed| {
        let revealed = revealed.get_or_insert_default();
        revealed.push((record, block));
        let old = revealed.len().saturating_sub(10);
        revealed.drain(..old);
    });
}

#[frame_support::pallet]
pub mod pallet {
    use frame_support::{dispatch::Pays, pallet_prelude::*};
    use frame_system::pallet_prelude::*;
    use sp_runtime::{AccountId32, traits::UniqueSaturatedInto};

    use super::{CommitmentInfo, Data, NetUid, Registration, UsageTracker};
    use crate::chain::runtime::subtensor;

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config:
        frame_system::Config<RuntimeEvent: From<Event<Self>>> + subtensor::Config
    {
        /// Most fields in a commitment.
        #[pallet::constant]
        type MaxFields: Get<u32>;
        #[pallet::constant]
        type InitialDeposit: Get<u64>;
        #[pallet::constant]
        type FieldDeposit: Get<u64>;
    }

    #[pallet::storage]
    pub type CommitmentOf<T> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, AccountId32, Registration, OptionQuery>;
    #[pallet::storage]
    pub type LastCommitment<T> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, AccountId32, u32, OptionQuery>;
    #[pallet::storage]
    pub type UsedSpaceOf<T> =
        StorageDoubleMap<_, Identity, NetUid, Twox64Concat, AccountId32, UsageTracker, OptionQuery>;
    /// What timelocked commitments said once they opened, each with the block of the commitment.
    #[pallet::storage]
    pub type RevealedCommitments<T> = StorageDoubleMap<
        _,
        Identity,
        NetUid,
        Twox64Concat,
        AccountId32,
        Vec<(Vec<u8>, u64)>,
        OptionQuery,
    >;
    #[pallet::storage]
    pub type MaxSpace<T> = StorageValue<_, u32, ValueQuery, ConstU32<3100>>;

    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        Commitment {
            netuid: NetUid,
            who: AccountId32,
        },
        TimelockCommitment {
            netuid: NetUid,
            who: AccountId32,
            reveal_round: u64,
        },
    }

    #[pallet::error]
    pub enum Error<T> {
        TooManyFieldsInCommitmentInfo,
        AccountNotAllowedCommit,
        SpaceLimitExceeded,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Replaces the signer's commitment on a subnet.
        #[pallet::call_index(0)]
        #[pallet::weight((Weight::from_parts(33_480_000, 0), DispatchClass::Normal, Pays::No))]
        pub fn set_commitment(
            origin: OriginFor<T>,
            netuid: NetUid,
            info: Box<CommitmentInfo>,
        ) -> DispatchResult {
            let who = ensure_signed(origin)?;
            ensure!(
                subtensor::Pallet::<T>::uid_of(netuid, &who).is_some(),
                Error::<T>::AccountNotAllowedCommit
            );
            Self::use_space(netuid, &who, &info)?;
            let block: u32 = frame_system::Pallet::<T>::block_number().unique_saturated_into();
            let sealed = info.fields.iter().find_map(|field| match field {
                Data::TimelockEncrypted { reveal_round, .. } => Some(*reveal_round),
                _ => None,
            });
            CommitmentOf::<T>::insert(
                netuid,
                &who,
                Registration {
                    deposit: 0,
                    block,
                    info: *info,
                },
            );
            LastCommitment::<T>::insert(netuid, &who, block);
            Self::deposit_event(match sealed {
                Some(reveal_round) => Event::TimelockCommitment {
                    netuid,
                    who,
                    reveal_round,
                },
                None => Event::Commitment { netuid, who },
            });
            Ok(())
        }
    }

    impl<T: Config> Pallet<T> {
        /// Takes the commitment's space from what the neuron has in this epoch.
        fn use_space(netuid: NetUid, who: &AccountId32, info: &CommitmentInfo) -> DispatchResult {
            let epoch = subtensor::SubnetEpochIndex::<T>::get(netuid);
            let needed = info.fields.iter().map(Data::space).sum::<u64>().max(100);
            let mut usage = UsedSpaceOf::<T>::get(netuid, who).unwrap_or_default();
            if usage.last_epoch != epoch {
                usage = UsageTracker {
                    last_epoch: epoch,
                    used_space: 0,
                };
            }
            usage.used_space += needed;
            ensure!(
                usage.used_space <= u64::from(MaxSpace::<T>::get()),
                Error::<T>::SpaceLimitExceeded
            );
            UsedSpaceOf::<T>::insert(netuid, who, usage);
            Ok(())
        }
    }
}

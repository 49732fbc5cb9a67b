//! Pallet `Drand`: pulses of the random beacon, which open timelocked commits.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{
    BoundedVec,
    traits::{ConstU32, Get},
};
use scale_info::TypeInfo;

pub use pallet::*;

/// Start of drand's quicknet, seconds since 1970. The local beacon keeps its rounds.
pub const BEACON_GENESIS: u64 = 1_692_803_367;
/// Seconds of a round.
pub const BEACON_PERIOD: u64 = 3;

#[derive(
    Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo, Clone, Debug, PartialEq, Eq,
)]
pub struct Pulse {
    pub round: u64,
    pub randomness: BoundedVec<u8, ConstU32<32>>,
    /// BLS signature of the round: a compressed point of G1.
    pub signature: BoundedVec<u8, ConstU32<144>>,
}

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
pub struct BeaconConfiguration {
    /// A compressed point of G2.
    pub public_key: BoundedVec<u8, ConstU32<144>>,
    pub period: u32,
    pub genesis_time: u32,
    pub hash: BoundedVec<u8, ConstU32<64>>,
    pub group_hash: BoundedVec<u8, ConstU32<64>>,
    pub scheme_id: BoundedVec<u8, ConstU32<64>>,
    pub metadata: Metadata,
}

/// Further words on the beacon.
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
pub struct Metadata {
    pub beacon_id: BoundedVec<u8, ConstU32<64>>,
}

/// The beacon that the metadata shows as the default: drand's quicknet. The state of this chain
/// always holds another, the local one.
#[derive(Debug)]
pub struct Quicknet;

impl Get<BeaconConfiguration> for Quicknet {
    fn get() -> BeaconConfiguration {
        const PUBLIC_KEY: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c\
            8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb\
            5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
        const HASH: &str = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971";
        const GROUP: &str = "f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e";
        BeaconConfiguration {
            public_key: BoundedVec::truncate_from(hex::decode(PUBLIC_KEY).unwrap_or_default()),
            period: BEACON_PERIOD as u32,
            genesis_time: BEACON_GENESIS as u32,
            hash: BoundedVec::truncate_from(hex::decode(HASH).unwrap_or_default()),
            group_hash: BoundedVec::truncate_from(hex::decode(GROUP).unwrap_or_default()),
            scheme_id: BoundedVec::truncate_from(b"bls-unchained-g1-rfc9380".to_vec()),
            metadata: Metadata {
                beacon_id: BoundedVec::truncate_from(b"quicknet".to_vec()),
            },
        }
    }
}

#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;

    use super::{BeaconConfiguration, Pulse, Quicknet};

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {}

    #[pallet::storage]
    pub type BeaconConfig<T> = StorageValue<_, BeaconConfiguration, ValueQuery, Quicknet>;
    #[pallet::storage]
    pub type Pulses<T> = StorageMap<_, Blake2_128Concat, u64, Pulse, OptionQuery>;
    #[pallet::storage]
    pub type LastStoredRound<T> = StorageValue<_, u64, ValueQuery>;
    #[pallet::storage]
    pub type OldestStoredRound<T> = StorageValue<_, u64, ValueQuery>;

    #[pallet::event]
    #[pallet::generate_deposit(pub fn deposit_event)]
    pub enum Event<T: Config> {
        #[codec(index = 1)]
        NewPulse { rounds: Vec<u64> },
    }
}

/// Returns the round in force at this time, milliseconds since 1970.
pub fn round_at(milliseconds: u64) -> u64 {
    (milliseconds / 1000).saturating_sub(BEACON_GENESIS) / BEACON_PERIOD + 1
}

//! Pallet `Drand`: pulses of the random beacon, which open timelocked commits.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{BoundedVec, traits::ConstU32};
use scale_info::TypeInfo;

pub use pallet::*;

/// Start of drand's quicknet, seconds since 1970. The local beacon keeps its rounds.
pub const BEACON_GENESIS: u64 = 1_692_803_367;
/// Seconds of a round.
pub const BEACON_PERIOD: u64 = 3;

/// One round's output.
#[derive(
    Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo, Clone, Debug, PartialEq, Eq,
)]
pub struct Pulse {
    pub round: u64,
    pub randomness: BoundedVec<u8, ConstU32<32>>,
    /// BLS signature of the round: a compressed point of G1.
    pub signature: BoundedVec<u8, ConstU32<144>>,
}

/// Who the beacon is.
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

#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;

    use super::{BeaconConfiguration, Pulse};

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {}

    #[pallet::storage]
    pub type BeaconConfig<T> = StorageValue<_, BeaconConfiguration, ValueQuery>;
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

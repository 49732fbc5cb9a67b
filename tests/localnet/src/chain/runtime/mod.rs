//! The runtime: Bittensor's pallets, calls, storage and runtime APIs, compiled natively.
#![expect(
    unreachable_pub,
    unused_qualifications,
    clippy::if_not_else,
    clippy::unnecessary_wraps,
    reason = "FRAME's macros write it so, and want `pub` for what stays in this crate"
)]

pub mod apis;
pub mod aura;
pub mod commitments;
pub mod drand;
pub mod extensions;
pub mod metadata;
pub mod newtype;
pub mod safe_mode;
pub mod subtensor;

use std::borrow::Cow;

use codec::Encode;
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU8, ConstU16, ConstU32, ConstU64, Get},
    weights::{IdentityFee, Weight},
};
use pallet_transaction_payment::FungibleAdapter;
use sp_runtime::{
    MultiAddress, MultiSignature, Perbill, generic,
    traits::{AccountIdLookup, BlakeTwo256},
};
use sp_version::RuntimeVersion;

/// Milliseconds of chain time between blocks.
pub const SLOT: u64 = 12_000;

/// Block numbers.
pub type BlockNumber = u32;
/// Accounts: sr25519 public keys.
pub type AccountId = sp_runtime::AccountId32;
pub type Address = MultiAddress<AccountId, ()>;
/// Block headers.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
pub type Extrinsic = generic::UncheckedExtrinsic<
    Address,
    RuntimeCall,
    MultiSignature,
    extensions::TransactionExtensions,
>;
/// Blocks.
pub type Block = generic::Block<Header, Extrinsic>;
pub type SignedPayload = generic::SignedPayload<RuntimeCall, extensions::TransactionExtensions>;
/// What runs blocks.
pub type Executive = frame_executive::Executive<
    Runtime,
    Block,
    frame_system::ChainContext<Runtime>,
    Runtime,
    AllPalletsWithSystem,
>;

frame_support::construct_runtime!(
    pub enum Runtime {
        System: frame_system = 0,
        Timestamp: pallet_timestamp = 2,
        Aura: aura = 3,
        Balances: pallet_balances = 5,
        TransactionPayment: pallet_transaction_payment = 6,
        SubtensorModule: subtensor = 7,
        Commitments: commitments = 18,
        SafeMode: safe_mode = 20,
        Drand: drand = 26,
    }
);

/// Where the state holds its `spec_version`, once [`Version`]'s first was raised.
pub const SPEC_VERSION: &[u8] = b":localnet:spec-version";

/// The runtime's version as of the block in hand.
#[derive(Debug)]
pub struct Version;

impl Get<RuntimeVersion> for Version {
    fn get() -> RuntimeVersion {
        RuntimeVersion {
            spec_name: Cow::Borrowed("node-subtensor"),
            impl_name: Cow::Borrowed("node-subtensor"),
            authoring_version: 1,
            spec_version: frame_support::storage::unhashed::get_or(SPEC_VERSION, 424),
            impl_version: 1,
            apis: apis::supported(),
            transaction_version: 1,
            system_version: 1,
        }
    }
}

parameter_types! {
    /// At most 4 s of work in a block.
    pub BlockWeights: frame_system::limits::BlockWeights =
        frame_system::limits::BlockWeights::with_sensible_defaults(
            Weight::from_parts(4_000_000_000_000, u64::MAX),
            Perbill::from_percent(75),
        );
    /// At most 10 MiB in a block.
    pub BlockLength: frame_system::limits::BlockLength =
        frame_system::limits::BlockLength::builder().max_length(10 * 1024 * 1024).build();
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type AccountData = pallet_balances::AccountData<u64>;
    type AccountId = AccountId;
    type BaseCallFilter = safe_mode::CallFilter;
    type Block = Block;
    type BlockHashCount = ConstU32<2400>;
    type BlockLength = BlockLength;
    type BlockWeights = BlockWeights;
    type Lookup = AccountIdLookup<AccountId, ()>;
    type MaxConsumers = ConstU32<16>;
    type Nonce = u32;
    type SS58Prefix = ConstU16<42>;
    type Version = Version;
}

impl pallet_timestamp::Config for Runtime {
    type MinimumPeriod = ConstU64<{ SLOT / 2 }>;
    type Moment = u64;
    type OnTimestampSet = ();
    type WeightInfo = ();
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Runtime {
    type AccountStore = System;
    type Balance = u64;
    type ExistentialDeposit = ConstU64<500>;
}

impl pallet_transaction_payment::Config for Runtime {
    type FeeMultiplierUpdate = ();
    type LengthToFee = IdentityFee<u64>;
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = ();
    type WeightToFee = IdentityFee<u64>;
}

impl aura::Config for Runtime {
    type SlotDuration = ConstU64<SLOT>;
}

impl subtensor::Config for Runtime {
    type InitialTempo = ConstU16<360>;
}

impl commitments::Config for Runtime {
    type FieldDeposit = ConstU64<0>;
    type InitialDeposit = ConstU64<0>;
    type MaxFields = commitments::MaxFields;
}

impl safe_mode::Config for Runtime {}

impl drand::Config for Runtime {}

/// Returns the hash of an extrinsic, by which the pool and clients know it.
pub fn extrinsic_hash(extrinsic: &impl Encode) -> sp_core::H256 {
    sp_io::hashing::blake2_256(&extrinsic.encode()).into()
}

/// Returns an error by its pallet and name, such as `SubtensorModule::DuplicateUids`.
pub fn error_name(error: sp_runtime::DispatchError) -> String {
    let sp_runtime::DispatchError::Module(module) = error else {
        return format!("{error:?}");
    };
    let pallet = match module.index {
        0 => "System",
        5 => "Balances",
        7 => "SubtensorModule",
        18 => "Commitments",
        _ => "another pallet",
    };
    match module.message {
        Some(name) => format!("{pallet}::{name}"),
        None => format!("{pallet}, error {:?}", module.error),
    }
}

//! Numbers with a meaning, whose type the metadata shows bare or, after an upgrade, as newtypes.

use codec::{CompactAs, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::{Path, Type, TypeInfo, build::Fields};

/// Present in the state when the metadata shows newtypes, as Bittensor's does since July 2026.
pub const SHOW_NEWTYPES: &[u8] = b":localnet:newtypes";

fn shown() -> bool {
    sp_externalities::with_externalities(|state| state.storage(SHOW_NEWTYPES).is_some())
        .unwrap_or(false)
}

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, CompactAs, Clone, Copy, Debug,
            Default, PartialEq, Eq, PartialOrd, Ord,
        )]
        pub struct $name(pub $inner);

        impl TypeInfo for $name {
            type Identity = Self;

            fn type_info() -> Type {
                if shown() {
                    Type::builder()
                        .path(Path::new(stringify!($name), "subtensor_runtime_common"))
                        .composite(Fields::unnamed().field(|field| field.ty::<$inner>()))
                } else {
                    <$inner>::type_info()
                }
            }
        }
    };
}

newtype!(NetUid(u16));
newtype!(
    /// Number of a mechanism of a subnet; the main one is 0.
    MechId(u8)
);
newtype!(
    /// Key of what each mechanism has for itself: `mechanism * 4096 + netuid`.
    NetUidStorageIndex(u16)
);
newtype!(TaoBalance(u64));
newtype!(
    /// A subnet's alpha, in rao.
    AlphaBalance(u64)
);
newtype!(
    /// A ratio, out of 65535.
    PerU16(u16)
);

impl NetUid {
    /// Returns the key of one of this subnet's mechanisms.
    pub fn index(self, mechanism: MechId) -> NetUidStorageIndex {
        NetUidStorageIndex(u16::from(mechanism.0) * 4096 + self.0)
    }
}

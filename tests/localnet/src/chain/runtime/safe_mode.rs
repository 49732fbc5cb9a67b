//! Pallet `SafeMode`: while it is entered, ordinary calls are refused.

use frame_support::traits::Contains;

pub use pallet::*;

#[frame_support::pallet]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_system::pallet_prelude::BlockNumberFor;

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config {}

    #[pallet::storage]
    pub type EnteredUntil<T: Config> = StorageValue<_, BlockNumberFor<T>, OptionQuery>;
}

/// The runtime's filter of calls: all pass, or, in safe mode, only the system's own.
#[derive(Debug)]
pub struct CallFilter;

impl Contains<super::RuntimeCall> for CallFilter {
    fn contains(call: &super::RuntimeCall) -> bool {
        EnteredUntil::<super::Runtime>::get().is_none()
            || matches!(
                call,
                super::RuntimeCall::System(_) | super::RuntimeCall::Timestamp(_)
            )
    }
}

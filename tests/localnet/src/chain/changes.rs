//! Changes of the state that on a real chain others would make: they come with a block.

use frame_support::{storage::unhashed, traits::Get};
use sp_runtime::DispatchError;

use super::runtime::{self, Runtime, extensions, newtype, safe_mode};

/// Work that a block does beside its extrinsics.
pub(super) type Change = Box<dyn FnOnce() -> Result<u16, DispatchError> + Send>;

/// An upgrade of the runtime: what clients see of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Upgrade {
    /// The new `spec_version`; `None` adds one.
    pub spec_version: Option<u32>,
    /// Whether the metadata shows NetUid, MechId, TaoBalance and others as newtypes.
    pub newtypes: bool,
    /// Whether the metadata shows a transaction extension that carries data.
    pub unknown_extension: bool,
}

/// The change that an [`Upgrade`] is: from the next block on all is seen anew.
pub(super) fn upgrade(upgrade: Upgrade) -> Change {
    Box::new(move || {
        let version = runtime::Version::get().spec_version;
        let next = upgrade.spec_version.unwrap_or(version + 1);
        unhashed::put(runtime::SPEC_VERSION, &next);
        show(newtype::SHOW_NEWTYPES, upgrade.newtypes);
        show(
            extensions::SHOW_UNKNOWN_EXTENSION,
            upgrade.unknown_extension,
        );
        Ok(0)
    })
}

fn show(key: &[u8], shown: bool) {
    if shown {
        unhashed::put_raw(key, &[1]);
    } else {
        unhashed::kill(key);
    }
}

/// The change that enters or leaves safe mode.
pub(super) fn safe_mode(entered: bool) -> Change {
    Box::new(move || {
        if entered {
            safe_mode::EnteredUntil::<Runtime>::put(u32::MAX);
        } else {
            safe_mode::EnteredUntil::<Runtime>::kill();
        }
        Ok(0)
    })
}

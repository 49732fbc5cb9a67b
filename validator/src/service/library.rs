//! The models: where they come from, what came of each commitment, what lies on disk.

use model::Compatibility;

use hub::Hub;
use models::{Store, Sync};

#[derive(Debug)]
pub(super) struct Library {
    pub(super) hub: Hub,
    pub(super) sync: Sync,
    pub(super) store: Store,
    pub(super) compatibility: Compatibility,
}

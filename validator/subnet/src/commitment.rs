//! A commitment: a hotkey's word, on the chain, that a model is its own.

use super::{BlockNumber, Hotkey, ModelId, Uid};

/// One hotkey's commitment to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    pub hotkey: Hotkey,
    /// The uid of the hotkey.
    pub uid: Uid,
    /// Block of the last change.
    pub block: BlockNumber,
    pub model_id: ModelId,
}

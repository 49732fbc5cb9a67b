//! What a hotkey has committed to.

use subnet::{BlockNumber, Hotkey, ModelId, Uid};

/// A commitment as the chain has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// The hotkey that signed it.
    pub hotkey: Hotkey,
    /// The uid of the hotkey.
    pub uid: Uid,
    /// Block in which the chain took it.
    pub block: BlockNumber,
    /// The model that it names.
    pub model_id: ModelId,
}

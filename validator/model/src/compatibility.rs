//! Which generation of the Python validator's libraries decides what is accepted.

use serde::{Deserialize, Serialize};

/// What a model may use. The subnet file says which holds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Compatibility {
    /// What transformers 4.40.0 loads: what the Python validators of the subnet run.
    #[default]
    #[serde(rename = "4.40")]
    V4_40,
    /// Also what only its successors load, such as llama3 rope scaling.
    #[serde(rename = "current")]
    Current,
}

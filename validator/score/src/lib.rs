//! Scoring, pure: duplicates, wins, weights, pool. Same inputs give the same bits on each validator.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing
)]

pub mod duplicates;
pub mod pool;
pub mod tempo;
pub mod weights;
pub mod wins;

pub use duplicates::{Claim, copies};
pub use pool::{consensus_pool, survivors};
pub use weights::{StepWeights, Weights};
pub use wins::{Entrant, WinRow, WinTable, is_win};

//! Miners: tiny models trained on the spot, their repositories on the hub, their commitments.

pub mod family;
pub mod network;
pub mod training;
pub mod vocabulary;

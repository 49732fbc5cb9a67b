//! What the validator and the eval-worker agree on: how a model directory is read, and the
//! protocol between the two. Pure: no tensor code, no network.

pub mod config;
pub mod header;
pub mod inventory;
pub mod norms;

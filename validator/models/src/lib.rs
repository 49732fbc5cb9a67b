//! Models: what is committed, what was verified, what lies on disk.
//!
//! A commitment is judged in two strides: from metadata alone ([`verify`]), which costs kilobytes
//! and settles nearly every lie, and while the bytes arrive (`download`), which settles the
//! rest. What passed lies in the [`store`] once, whoever committed to it. [`sync`] decides when a
//! commitment is looked at and remembers what came of it in the [`tracker`].

mod claim;
pub mod cleaner;
pub mod copies;
mod digest;
mod download;
mod identity;
pub mod manifest;
mod metadata;
pub mod rejection;
pub mod report;
pub mod rules;
mod scan;
pub mod store;
pub mod sync;
pub mod tokenizer;
pub mod tracker;
mod tries;
pub mod verify;

pub use digest::Digest;
pub use rejection::Rejection;
pub use report::Report;
pub use rules::Rules;
pub use store::Store;
pub use sync::{Event, Sync, SyncOptions};
pub use tokenizer::{TokenizerPin, Tokenizers};
pub use tracker::Tracker;
pub use verify::{VerifiedModel, Verifier};

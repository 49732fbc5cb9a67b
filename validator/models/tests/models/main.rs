//! Models from a real hub over HTTP: judged, fetched, kept, cleaned up.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's panic is its verdict"
)]

mod churn;
mod decay;
mod defects;
mod golden;
mod hostile;
mod manifest;
mod mirror_flags;
mod mirrors;
mod origins;
mod process;
mod refusals;
mod sync;
mod tokenizer;
mod world;

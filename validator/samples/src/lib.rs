//! Chat samples: where they come from, which are usable, which are drawn.

pub mod cache;
pub mod fetcher;
pub mod filter;
pub mod harvest;
pub mod hub;
pub mod jsonl;
pub mod lenient_json;
pub mod record;
pub mod sample_set;
pub mod source;
pub mod supply;
pub mod text;
pub mod wandb;
pub mod web;

pub use fetcher::{Fetcher, FetcherSettings, Pool};
pub use sample_set::{Sample, SampleSet, Seed};
pub use source::{Source, Weighted};
pub use supply::{Drawn, Order, Supply};

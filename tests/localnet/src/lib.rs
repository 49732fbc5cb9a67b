//! A whole subnet on loopback: chain, hub, miners, samples, W&B stand-in, git remote.

pub mod bucket;
pub mod chain;
pub mod cli;
pub mod demo;
mod endpoints;
pub mod feed;
pub mod http;
pub mod hub;
pub mod miners;
pub mod remote;
pub mod samples;
pub mod subnet;
pub mod table;
pub mod wallet;
pub mod wandb;

pub use endpoints::Endpoints;
pub use subnet::{Localnet, Options};

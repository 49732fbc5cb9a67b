//! Validator of Bittensor's fine-tuning subnet.
//!
//! Imports go down, never up and never sideways between the folders of one row:
//!
//! ```text
//! main -> cli -> service            who runs, who stops
//! step  state                       one evaluation cycle, in order; what survives a restart
//! chain  models  samples  eval  score  report
//! subnet                            nouns and rules of the subnet; no I/O
//! ```

pub mod chain;
pub mod cli;
pub mod eval;
pub mod http;
pub mod models;
pub mod report;
pub mod samples;
pub mod score;
pub mod service;
pub mod state;
pub mod step;
pub mod subnet;

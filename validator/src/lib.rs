//! Validator of Bittensor's fine-tuning subnet: what joins its rooms, which are crates of their own.
//!
//! ```text
//! main -> cli -> service            who runs, who stops
//! step -> state                     one evaluation cycle, in order; what survives a restart
//! chain  models  samples  eval      the crates below `validator/`: no arrow between two of a row
//! report                            the step record, and what is made of it
//! score  http-client
//! subnet                            nouns and rules of the subnet; no I/O
//! ```

pub mod cli;
mod hints;
pub mod service;
pub mod state;
pub mod step;

//! From a new commit on the remote to a new version running, or back.

pub mod build;
pub mod channel;
pub mod checkout;
pub mod clone;
pub mod journal;
pub mod login;
pub mod probation;
pub mod quarantine;
pub mod release;
pub mod remote;
pub mod state;
mod step;
pub mod transport;
pub mod verify;
pub mod worktree;

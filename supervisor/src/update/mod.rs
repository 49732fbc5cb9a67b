//! From a new commit on the remote to a new version running, or back.

pub(crate) mod build;
mod build_environment;
mod build_log;
pub(crate) mod channel;
pub(crate) mod checkout;
mod clone;
mod committed;
pub mod journal;
pub(crate) mod login;
pub mod probation;
pub mod quarantine;
pub(crate) mod release;
pub(crate) mod release_key;
pub(crate) mod remote;
pub(crate) mod sandbox;
pub(crate) mod smoke_test;
pub mod state;
pub mod step;
pub(crate) mod transport;
pub(crate) mod trial_build;
pub(crate) mod upstream;
pub mod verify;
pub mod version;
mod visible;
mod worktree;

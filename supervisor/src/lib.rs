//! Keeps one program built from a git branch alive and up to date.
//!
//! Two pure state machines decide, [`update::state`] and [`child::state`]; one loop,
//! [`supervise`], feeds them and carries out what they say; short-lived [`worker`] processes do
//! what takes time or memory. Everything that must survive a crash lies in files ([`home`]), so a
//! crash, an update of the supervisor itself and a plain start are the same thing.

pub mod child;
pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod history;
pub mod home;
pub mod job;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod self_update;
pub mod supervise;
pub mod update;
pub mod worker;

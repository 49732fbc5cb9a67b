//! Keeps one program built from a git branch alive and up to date.
//!
//! A pure machine decides ([`supervise::machine`], made of [`update::state`] and
//! [`child::state`]); one loop, [`supervise`], feeds it and carries out what it says; short-lived
//! worker processes do what takes time or memory. Everything that must survive a crash lies in
//! files ([`home`]), so a crash, an update of the supervisor itself and a plain start are the same
//! thing.

pub mod child;
pub mod cli;
mod config;
pub mod control;
pub mod error;
mod history;
pub mod home;
mod job;
mod memory;
mod metrics;
mod notify;
pub mod report;
pub mod self_update;
pub mod supervise;
mod text;
mod trouble;
pub mod update;
mod worker;

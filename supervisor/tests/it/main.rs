//! The supervisor against real git, real processes and real servers, as one program.

#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

mod blame;
mod builds;
mod calls;
mod child;
mod clock;
mod commands;
mod crash_points;
mod defects;
mod descendants;
mod faults;
mod local_changes;
mod release_channel;
mod remotes;
mod self_update;
mod signatures;
mod state_machine;
mod trouble;
mod workbench;

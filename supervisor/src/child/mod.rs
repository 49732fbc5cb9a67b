//! The one child: how it is started, watched, stopped, and where its output goes.

mod backoff;
pub mod control;
pub mod group;
pub(crate) mod health;
pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod spec;
pub mod state;
pub mod step;

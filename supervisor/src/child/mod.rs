//! The one child: how it is started, watched, stopped, and where its output goes.

pub mod control;
pub mod health;
pub mod log;
pub mod restart;
pub mod spec;
pub mod state;

//! What the supervisor and the validator share: processes, namespaces, control groups, files, logging, shutdown, status.
//!
//! The two programs of *different versions* meet only here: through exit codes ([`exit`]), the
//! status file ([`status`]), the sd_notify protocol ([`notify`]) and the supervisor's own status ([`supervision`]).

pub mod back_off;
pub mod causes;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod exit;
pub mod failure;
pub mod file;
pub mod fork;
pub mod log;
pub mod log_file;
pub mod namespaces;
pub mod notices;
pub mod notify;
pub mod notify_target;
pub mod output;
pub mod process;
pub mod shutdown;
pub mod status;
pub mod supervision;
pub mod task;
pub mod term;
pub mod version;

pub use exit::Exit;
pub use failure::Failure;

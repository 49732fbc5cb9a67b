//! Reports: the step record, and what is made of it.

pub mod audit;
pub mod board;
pub mod device;
pub mod events;
pub mod journal;
pub mod meters;
pub mod metrics;
pub mod problem;
pub mod publication;
pub mod rules;
pub mod status;
pub mod step_record;
pub mod table;
pub mod wandb;

pub use board::Board;
pub use journal::Journal;
pub use step_record::StepRecord;

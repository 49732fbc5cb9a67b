//! Reports: the step record, and what is made of it.

pub mod step_record;
pub mod wandb;

pub use step_record::StepRecord;

//! The evaluation engine: loads untrusted models and computes their losses, packed.
//!
//! [`tokenize`] turns conversations into samples; [`load`] reads a model's files into a
//! [`decoder::Model`]; [`loss`] evaluates samples with it, [`generate`] continues a prompt. All
//! run on a [`device`]. [`worker`] does all that for the validator, behind the walls of the
//! [`sandbox`].

mod activation;
pub mod attention;
mod batch;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod decoder;
pub mod device;
mod dtype;
mod fault;
pub mod folder;
pub mod generate;
pub mod heads;
mod linear;
pub mod load;
pub mod loss;
pub mod memory;
mod norm;
pub mod reference;
mod residual;
mod rotary;
pub mod sandbox;
mod teams;
pub mod template;
pub mod tokenize;
pub mod worker;

/// Stack of every thread that computes: deep recursion in a hostile template or tokenizer should
/// meet its limit before the stack's.
pub const STACK: usize = 64 << 20;

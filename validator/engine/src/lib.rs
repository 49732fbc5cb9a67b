//! Loads untrusted models and computes their losses.

pub mod template;
pub mod tokenize;

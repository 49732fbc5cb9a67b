//! What strangers can hand us, and what must hold whatever they hand us.
//!
//! A target takes any bytes and panics where a promise of the parser is broken. `scripts/fuzz`
//! runs each under libFuzzer, starting from `corpus/TARGET`; a plain test feeds every target its
//! corpus. A new target is a function here, a line in [`TARGETS`], a program in `src/bin` and
//! `Cargo.toml`, and a few seeds.

mod engine;
mod model;

pub use crate::{
    engine::chat_template,
    model::{eval_protocol, model_config, safetensors_header},
};

/// Every target by its name.
pub const TARGETS: [(&str, fn(&[u8])); 4] = [
    ("chat_template", chat_template),
    ("eval_protocol", eval_protocol),
    ("model_config", model_config),
    ("safetensors_header", safetensors_header),
];

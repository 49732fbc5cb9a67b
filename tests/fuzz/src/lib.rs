//! What strangers can hand us, and what must hold whatever they hand us.
//!
//! A target takes any bytes and panics where a promise of the parser is broken. `scripts/fuzz`
//! runs each under libFuzzer, starting from `corpus/TARGET`; a plain test feeds every target its
//! corpus. A new target is a function here, a line in [`TARGETS`], a program in `src/bin` and
//! `Cargo.toml`, and a few seeds.

mod chain;
mod engine;
mod model;
mod samples;
mod supervisor;

use std::{fs::File, io::Write as _, path::Path};

use tempfile::TempDir;

pub use crate::{
    chain::{commitment_record, model_id, step_record},
    engine::{chat_template, sentencepiece_model, tokenizer_files},
    model::{eval_protocol, hub_listing, model_config, model_tensors, safetensors_header},
    samples::{parquet_table, sample_records, wandb_answers},
    supervisor::{allowed_signers, commit_signature, status_file, update_journal},
};

/// Takes any bytes, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 18] = [
    ("allowed_signers", allowed_signers),
    ("chat_template", chat_template),
    ("commit_signature", commit_signature),
    ("commitment_record", commitment_record),
    ("eval_protocol", eval_protocol),
    ("hub_listing", hub_listing),
    ("model_config", model_config),
    ("model_id", model_id),
    ("model_tensors", model_tensors),
    ("parquet_table", parquet_table),
    ("safetensors_header", safetensors_header),
    ("sample_records", sample_records),
    ("sentencepiece_model", sentencepiece_model),
    ("status_file", status_file),
    ("step_record", step_record),
    ("tokenizer_files", tokenizer_files),
    ("update_journal", update_journal),
    ("wandb_answers", wandb_answers),
];

/// Returns one of several texts that zero bytes part.
fn part(data: &[u8], index: usize) -> &[u8] {
    data.split(|byte| *byte == 0).nth(index).unwrap_or_default()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// Writes a file that need not survive a crash.
fn write(path: &Path, bytes: &[u8]) {
    let written = File::create(path).and_then(|mut file| file.write_all(bytes));
    written.expect("a temporary file can be written");
}

//! Fuzzes [`fuzz::wandb_answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wandb_answers(data));

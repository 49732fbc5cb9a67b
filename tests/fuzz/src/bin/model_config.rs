//! Fuzzes [`fuzz::model_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::model_config(data));

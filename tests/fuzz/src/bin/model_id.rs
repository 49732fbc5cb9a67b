//! Fuzzes [`fuzz::model_id`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::model_id(data));

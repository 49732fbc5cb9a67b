//! Fuzzes [`fuzz::step_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::step_record(data));

//! Fuzzes [`fuzz::sample_records`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sample_records(data));

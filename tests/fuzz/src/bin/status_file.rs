//! Fuzzes [`fuzz::status_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::status_file(data));

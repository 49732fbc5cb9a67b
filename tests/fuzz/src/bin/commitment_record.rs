//! Fuzzes [`fuzz::commitment_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::commitment_record(data));

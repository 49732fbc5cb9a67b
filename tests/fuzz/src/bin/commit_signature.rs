//! Fuzzes [`fuzz::commit_signature`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::commit_signature(data));

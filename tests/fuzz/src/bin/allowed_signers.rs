//! Fuzzes [`fuzz::allowed_signers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::allowed_signers(data));

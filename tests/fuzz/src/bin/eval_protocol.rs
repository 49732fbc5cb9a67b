//! Fuzzes [`fuzz::eval_protocol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::eval_protocol(data));

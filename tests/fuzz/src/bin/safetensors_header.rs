//! Fuzzes [`fuzz::safetensors_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::safetensors_header(data));

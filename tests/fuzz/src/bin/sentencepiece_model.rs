//! Fuzzes [`fuzz::sentencepiece_model`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sentencepiece_model(data));

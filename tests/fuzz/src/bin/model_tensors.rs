//! Fuzzes [`fuzz::model_tensors`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::model_tensors(data));

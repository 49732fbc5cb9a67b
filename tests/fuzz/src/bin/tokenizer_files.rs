//! Fuzzes [`fuzz::tokenizer_files`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::tokenizer_files(data));

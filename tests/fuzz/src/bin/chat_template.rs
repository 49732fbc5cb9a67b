//! Fuzzes [`fuzz::chat_template`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::chat_template(data));

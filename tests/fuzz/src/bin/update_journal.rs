//! Fuzzes [`fuzz::update_journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::update_journal(data));

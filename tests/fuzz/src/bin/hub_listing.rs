//! Fuzzes [`fuzz::hub_listing`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::hub_listing(data));

//! Fuzzes [`fuzz::parquet_table`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::parquet_table(data));

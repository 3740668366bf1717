#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::inventory::fuzz_load_option(bytes));

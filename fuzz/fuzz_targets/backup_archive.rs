//! Any bytes as a backup: never a panic, a path that leads elsewhere, or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| controller::backup::fuzz_archive(bytes));

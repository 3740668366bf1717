//! Any sectors as a partition table: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::table(&*volume::fuzz::sparse_disk(bytes)));

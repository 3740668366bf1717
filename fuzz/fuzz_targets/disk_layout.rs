//! Any sectors as a whole disk: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::layout(&volume::fuzz::sparse_disk(bytes)));

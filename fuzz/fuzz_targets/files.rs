//! Any sectors as a filesystem whose files are read: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::files(&volume::fuzz::sparse_disk(bytes)));

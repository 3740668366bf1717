//! Any sectors as a volume to be probed: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::probe(&*volume::fuzz::sparse_disk(bytes)));

//! Any bytes as the metadata of a set of firmware RAID: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::firmware_raid(bytes));

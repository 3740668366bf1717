//! Any bytes as LVM2 metadata text: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::lvm_text(bytes));

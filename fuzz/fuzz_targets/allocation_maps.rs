//! Any sectors as an ext2/3/4, FAT, exFAT, NTFS or swap volume: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| volume::fuzz::map(&volume::fuzz::sparse_disk(bytes)));

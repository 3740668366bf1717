//! Any bytes as an index of modules as depmod writes it: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::linux::module_index_round_trip(bytes);
});

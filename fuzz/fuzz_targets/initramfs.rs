//! Any bytes as an initramfs in any compression: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = guest::linux::initramfs::read_bytes(bytes);
});

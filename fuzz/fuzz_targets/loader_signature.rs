//! Any bytes as a boot loader.
#![no_main]

use guest::windows::LoaderSignature;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = LoaderSignature::of(bytes);
});

//! Any bytes as a kernel module: never a panic or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = kernel_modules::parse_module(bytes) {
        assert!(info.firmware.len() + info.aliases.len() <= 100_000);
        assert!(info.signer.is_none_or(|name| name.len() <= 256));
    }
});

//! Any bytes as the head of an answer in HTTP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(head) = bootenv::download::parse_head(bytes) {
        assert!(head.location.is_none_or(|location| location.len() <= bytes.len()));
    }
});

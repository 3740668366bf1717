//! Any bytes as the record of a push: refused, or read again as the same from what is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oneshot::fuzz_record(bytes));

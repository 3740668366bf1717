#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol::frame::fuzz_frame(bytes));

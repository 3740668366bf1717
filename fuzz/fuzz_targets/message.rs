#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol::message::fuzz_message(bytes));

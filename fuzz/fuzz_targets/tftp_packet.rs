//! Any bytes as a TFTP request, then as the acknowledgements of its transfer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netboot::tftp::fuzz_packet(bytes));

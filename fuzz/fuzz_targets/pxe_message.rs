//! Any bytes as a DHCP request of a firmware, answered under each policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netboot::dhcp::fuzz_message(bytes));

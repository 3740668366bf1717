//! Any bytes as an IP packet on a DHCP client's socket, then as the offer and acknowledgement that it acts on.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bootenv::dhcp::fuzz_packet(bytes));

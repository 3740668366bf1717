//! Any bytes as `grub.cfg`, looked through for what the one-shot entry needs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oneshot::fuzz_grub_configuration(bytes));

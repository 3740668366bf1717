//! Any bytes as grub.cfg, fstab and the serial output of a guest: never a panic, a loop or memory without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let menu = guest::linux::grub::parse_menu(&text);
    let _ = guest::linux::grub::default_entry(&menu, Some(&text));
    let _ = guest::linux::grub::environment_value(bytes, "saved_entry");
    let _ = guest::linux::parse_fstab(&text);
    let _ = guest::proof::classify(&text, "host");
    let _ = guest::proof::parse_probe_line(&text, "n");
});

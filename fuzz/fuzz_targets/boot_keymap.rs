//! Any bytes as the keymap of the boot image.
#![no_main]

use bootenv::keymap::parse_keymap;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(tables) = parse_keymap(bytes) {
        assert_eq!(bytes.len(), 7 + 256 + tables.len() * 256);
        assert!(tables.iter().all(|table| table.keys.len() == 128));
    }
});

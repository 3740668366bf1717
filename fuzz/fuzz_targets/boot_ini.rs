//! Any bytes as `boot.ini`: read and shown.
#![no_main]

use guest::windows::boot_ini::{ArcPath, BOOT_INI_MAX, BootIni};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(ini) = BootIni::parse(bytes) {
        assert!(bytes.len() <= BOOT_INI_MAX);
        let _ = ini.to_string();
        for arc in ini.entries.iter().filter_map(|entry| entry.arc.as_ref()) {
            assert_eq!(ArcPath::parse(&arc.to_string()).as_ref(), Some(arc));
        }
    }
});

//! Any bytes as a registration file: never a panic, and what is read is merged into a hive that stays whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(sections) = guest::windows::reg_text::parse(bytes) {
        for section in &sections {
            let _ = guest::windows::reg_text::full_path(&section.key).to_string();
        }
    }
});

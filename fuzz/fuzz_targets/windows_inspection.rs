//! Any keys, and any changes of the hive that has them, as those of a Windows: opened, inspected and shown without a panic or a
//! loop, in printable words.
#![no_main]

use guest::windows::inspection::{Inspection, Surroundings};
use guest::windows::{Windows, path};

#[path = "../made_windows.rs"]
mod made_windows;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
    if let Some(found) = path::of_registry(&text, "/Windows", "C:\\Windows") {
        assert!(found.starts_with('/'), "{found}");
    }
    let Some(tree) = made_windows::made_windows(bytes, "") else { return };
    if let Ok(Some(windows)) = Windows::open(&tree) {
        let inspection = Inspection::of(&windows, &tree, &Surroundings::default());
        let _ = inspection.network.as_ref().map(|network| network.for_first_boot());
        let _ = inspection.drive_letters.as_ref().map(|letters| letters.for_first_boot());
        assert!(!inspection.to_string().chars().any(|c| c.is_control() && c != '\n'));
    }
});

//! Any bytes as both hives of a Windows: opened, inspected and shown without a panic or a loop, in printable words.
#![no_main]

use guest::MemoryTree;
use guest::windows::inspection::{Inspection, Surroundings};
use guest::windows::{Windows, path};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Some(found) = path::of_registry(&text, "/Windows", "C:\\Windows") {
        assert!(found.starts_with('/'), "{found}");
    }
    let tree = MemoryTree::new()
        .with("/Windows/System32/config/SYSTEM", bytes)
        .with("/Windows/System32/config/SOFTWARE", bytes);
    if let Ok(Some(windows)) = Windows::open(&tree) {
        let inspection = Inspection::of(&windows, &tree, &Surroundings::default());
        let _ = inspection.network.as_ref().map(|network| network.for_first_boot());
        assert!(!inspection.to_string().chars().any(|c| c.is_control() && c != '\n'));
    }
});

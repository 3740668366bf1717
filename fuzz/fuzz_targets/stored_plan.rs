//! Any text as a stored plan, which came from the VM that looked at the guest: read, shown, applied to files that are others, and
//! written as registration files.
#![no_main]

use guest::windows::hive::KeyPath;
use guest::{Change, Direction, MemoryTree, Plan, apply, registration};

#[path = "../small_hive.rs"]
mod small_hive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = serde_json::from_slice::<Plan>(bytes) else { return };
    let _ = plan.to_string();
    let stored = serde_json::to_vec(&plan).expect("it has no maps with odd keys");
    assert!(serde_json::from_slice::<Plan>(&stored).expect("it was written so") == plan);
    for change in plan.fixups.iter().flat_map(|fixup| &fixup.changes) {
        if let Change::Registry { changes, .. } = change {
            let prefix = KeyPath::from("HKLM\\SYSTEM");
            for direction in [Direction::Forth, Direction::Back] {
                let _ = guest::windows::reg_text::parse(registration(changes, &prefix, direction).as_bytes());
            }
        }
    }
    let mut tree = MemoryTree::new().with("/S", small_hive::small_hive()).with("/etc/fstab", "x\n").with_room(1 << 20);
    apply(&plan, &[], &mut tree);
});

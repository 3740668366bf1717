//! Any bytes as a registry hive: read, walked, checked and salvaged without a panic, a loop or memory beyond its size.
#![no_main]

use guest::windows::hive::{Hive, KeyPath, Unfinished};
use guest::windows::reg_text::{Encoding, Export, export, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let empty = KeyPath::default();
    if let Ok(hive) = Hive::load(bytes.to_vec(), &[], Unfinished::ReadAsItIs) {
        let check = hive.check();
        let root = hive.root().expect("it was opened");
        let (mut keys, mut room) = (0, bytes.len());
        let is_read = hive.walk(&root).all(|step| {
            keys += 1;
            step.is_ok_and(|step| {
                let (class, security) = (step.key.class(), step.key.security());
                let mut values = step.key.values().into_iter().flatten();
                step.key.name().is_ok()
                    && class.is_ok()
                    && security.is_ok()
                    && values.all(|value| {
                        value.is_ok_and(|value| {
                            // Damaged hives may share values without end; whole ones have room for them.
                            room = room.saturating_sub(20 + value.length());
                            room > 0 && value.name().is_ok() && value.data().is_ok()
                        })
                    })
            })
        });
        if check.is_whole() {
            assert!(is_read && keys == check.keys, "whole, and not read: {keys} of {check:?}");
        }
        let _ = hive.open("ControlSet001\\Services\\Disk");
        let _ = (hive.current_control_set(), hive.control_sets());
    }
    if let Ok((hive, _)) = Hive::salvage(bytes.to_vec(), &[])
        && let Ok(root) = hive.root()
    {
        let how = Export { key: &empty, prefix: &KeyPath::from("HKLM\\X"), encoding: Encoding::Utf16, salvage: true };
        let mut text = Vec::new();
        if export(&hive, &root, &how, &mut text).is_ok() && text.len() < 1 << 20 {
            let _ = parse(&text);
        }
    }
});

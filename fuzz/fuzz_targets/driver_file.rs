//! Any bytes as a file that a driver comes in: never a panic, a path that leads out, or memory without bound.
#![no_main]

use kernel_modules::{Part, is_firmware_name, read_driver};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for name in ["x.deb", "x.ko.xz", "x.ko.zst", "x.fw"] {
        let _ = read_driver(name, bytes, &mut |part| {
            match part {
                Part::Module { file, .. } => assert!(!file.contains('/')),
                Part::Firmware { name, .. } => assert!(is_firmware_name(&name)),
                Part::FirmwareLink { name, target } => assert!(is_firmware_name(&name) && is_firmware_name(&target)),
            }
            Ok(())
        });
    }
});

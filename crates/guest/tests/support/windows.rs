//! Windows installations made of hives: the real ones of the test data, and small ones written as registration files.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::path::Path;

use guest::MemoryTree;
use guest::windows::hive::{Filetime, Hive, KeyPath, Unfinished};
use guest::windows::reg_text;

use crate::support::{hive, unpack};

/// The file of a hive with the keys of a registration file, whose keys begin at the hive's root.
pub fn hive_of(data: &Path, text: &str) -> Vec<u8> {
    let mut hive = Hive::load(unpack(data, "hives/odd/EmptyHive"), &[], Unfinished::Refuse).unwrap();
    merge(&mut hive, text);
    hive.to_file(Filetime(1))
}

/// The file of a real hive, its logs replayed, after a registration file was merged into it.
pub fn merged(data: &Path, name: &str, text: &str) -> Vec<u8> {
    let mut hive = hive(data, name);
    merge(&mut hive, text);
    hive.to_file(Filetime(1))
}

fn merge(hive: &mut Hive, text: &str) {
    let sections = reg_text::parse(format!("Windows Registry Editor Version 5.00\n{text}").as_bytes()).unwrap();
    let mut edit = hive.edit(Filetime(1)).unwrap();
    reg_text::merge(&mut edit, &sections, &KeyPath::default()).unwrap();
    edit.commit().unwrap();
}

/// A tree with these hives below `root`.
pub fn tree(root: &str, system: impl AsRef<[u8]>, software: impl AsRef<[u8]>) -> MemoryTree {
    MemoryTree::new()
        .with(&format!("{root}/system32/config/SYSTEM"), system)
        .with(&format!("{root}/system32/config/SOFTWARE"), software)
}

/// What every SOFTWARE hive says of its Windows.
pub fn version(current: &str, build: u32, system_root: &str) -> String {
    let system_root = system_root.replace('\\', "\\\\");
    format!(
        "[Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentVersion\"=\"{current}\"\n\"CurrentBuildNumber\"=\"{build}\"\n\
         \"SystemRoot\"=\"{system_root}\"\n"
    )
}

/// The same of Windows 10 and later.
pub fn version_10(build: u32) -> String {
    version("6.3", build, "C:\\Windows")
        + "\"CurrentMajorVersionNumber\"=dword:0000000a\n\"CurrentMinorVersionNumber\"=dword:00000000\n"
}

/// The least that a SYSTEM hive says: one control set, in use.
pub fn minimal_system(architecture: &str, product: &str) -> String {
    format!(
        "[Select]\n\"Current\"=dword:00000001\n\"Default\"=dword:00000001\n\"Failed\"=dword:00000000\n\
         \"LastKnownGood\"=dword:00000001\n\
         [ControlSet001\\Control\\Session Manager\\Environment]\n\"PROCESSOR_ARCHITECTURE\"=\"{architecture}\"\n\
         [ControlSet001\\Control\\ProductOptions]\n\"ProductType\"=\"{product}\"\n"
    )
}

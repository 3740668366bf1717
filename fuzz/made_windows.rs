//! A Windows made of two registration files, as it stands below a folder.

use guest::MemoryTree;
use guest::windows::drivers::INBOX_DRIVERS;
use guest::windows::hive::{Filetime, Hive, KeyPath, Unfinished};
use guest::windows::reg_text;

#[path = "small_hive.rs"]
mod small_hive;

/// `bytes` are SYSTEM's registration file, 0xff, that of SOFTWARE, 0xff, and changes of SYSTEM's bins: where (2 bytes), and to what.
/// The files' keys begin below the hives' roots, and lack the first line.
pub fn made_windows(bytes: &[u8], folder: &str) -> Option<MemoryTree> {
    let mut parts = bytes.splitn(3, |byte| *byte == 0xff);
    let (system, software) = (parts.next()?, parts.next()?);
    let (mut system, software) = (hive_of(system)?, hive_of(software)?);
    for change in parts.next().unwrap_or_default().chunks_exact(3).take(64) {
        let at = 4096 + usize::from(u16::from_le_bytes([change[0], change[1]])) % (system.len() - 4096);
        system[at] = change[2];
    }
    let windows = format!("{folder}/Windows/System32");
    let tree = MemoryTree::new()
        .with(&format!("{windows}/config/SYSTEM"), system)
        .with(&format!("{windows}/config/SOFTWARE"), software);
    let drivers = INBOX_DRIVERS.iter().map(|driver| format!("{windows}/drivers/{}", driver.file));
    Some(drivers.collect::<std::collections::BTreeSet<_>>().iter().fold(tree, |tree, path| tree.with(path, "driver")))
}

fn hive_of(text: &[u8]) -> Option<Vec<u8>> {
    let text = [b"Windows Registry Editor Version 5.00\n", text].concat();
    let sections = reg_text::parse(&text).ok()?;
    let mut hive = Hive::load(small_hive::small_hive(), &[], Unfinished::ReadAsItIs).ok()?;
    let mut edit = hive.edit(Filetime(1)).ok()?;
    // What cannot be merged leaves what came before it.
    for section in sections {
        let _ = reg_text::merge(&mut edit, &[section], &KeyPath::default());
    }
    edit.commit().ok()?;
    Some(hive.to_file(Filetime(1)))
}

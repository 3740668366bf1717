//! Any files as those of a Linux guest: they are planned for and the plan is applied; a second time nothing is left.
//!
//! The input is a row of files that end with 0xff: a path, a line feed, the contents; `@` before the path: a link.
#![no_main]

use guest::{MemoryTree, State, apply, plan};
use machine::{ByteCount, ByteOffset, Disk, DiskIdentity, DiskLayout, Machine, SectorSize, Volume, VolumePlace};

const FILES_MAX: usize = 64;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut tree = MemoryTree::new();
    let mut seen = Vec::new();
    for file in bytes.split(|byte| *byte == 0xff).take(FILES_MAX) {
        let Some(end) = file.iter().position(|byte| *byte == b'\n') else { continue };
        let (Ok(path), contents) = (std::str::from_utf8(&file[..end]), &file[end + 1..]) else { continue };
        let (path, link) = path.strip_prefix('@').map_or((path, false), |path| (path, true));
        if !is_possible(path, &seen) {
            continue;
        }
        seen.push(path);
        tree = match std::str::from_utf8(contents) {
            Ok(target) if link => tree.with_link(path, target.trim_end()),
            _ => tree.with(path, contents),
        };
    }
    let machine = machine();
    // Its second volume is left out.
    let absent = [VolumePlace { disk: 0, offset: ByteOffset(600 << 20), part: None }];
    let Ok(planned) = plan(&tree, &machine, &absent, &[]) else { return };
    let _ = planned.to_string();
    let first = apply(&planned, &[], &mut tree);
    // A fix-up may fail, as at a link that leads in circles; the disk is thrown away then.
    if first.iter().any(|outcome| outcome.state == State::Failed) {
        return;
    }
    let second = apply(&planned, &[], &mut tree);
    assert!(second.iter().all(|outcome| outcome.state == State::AlreadySo), "{first:?}\n{second:?}");
});

/// A path as a tree can have it: absolute, plain names, neither twice nor below or above a file.
fn is_possible(path: &str, seen: &[&str]) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() < 256;
    path.len() < 1024
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
        && seen.iter().all(|other| !below(path, other) && !below(other, path))
}

fn machine() -> Machine {
    let volume = |number: u32, offset: u64, kind: &str, uuid: &str| Volume {
        offset: ByteOffset(offset << 20),
        size: ByteCount::mib(500),
        number: Some(number),
        kind: kind.into(),
        uuid: Some(uuid.into()),
        used_bytes: ByteCount::mib(1),
        ..Volume::default()
    };
    let root = volume(1, 1, "ext4", "2c9f3a5e-0d0c-4f5c-9d39-1f0f64b5b1a7");
    let safe = volume(2, 600, "crypto_LUKS", "5d1f0f64-0d0c-4f5c-9d39-2c9f3a5eb1a7");
    let disk = Disk {
        path: "/dev/sda".into(),
        format: "raw".into(),
        virtual_size: ByteCount::gib(2),
        logical_sector_size: SectorSize::B512,
        identity: DiskIdentity::default(),
        layout: DiskLayout { volumes: vec![root, safe], ..DiskLayout::default() },
    };
    Machine { disks: vec![disk], ..Machine::default() }
}

//! Any files as those of a Linux guest: they are planned for and the plan is applied; a second time nothing is left.
//!
//! The input is a row of files that end with 0xff: a path, a line feed, the contents; `@` before the path: a link.
#![no_main]

use guest::{MemoryTree, State, apply, plan};
use machine::{ByteCount, ByteOffset, Disk, DiskIdentity, DiskLayout, Machine, SectorSize, Volume};

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
    let Ok(planned) = plan(&tree, &machine, &[]) else { return };
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
    let volume = Volume {
        offset: ByteOffset(1 << 20),
        size: ByteCount::mib(500),
        number: Some(1),
        partition_type: None,
        partition_uuid: None,
        kind: "ext4".into(),
        label: None,
        uuid: Some("2c9f3a5e-0d0c-4f5c-9d39-1f0f64b5b1a7".into()),
        used_bytes: ByteCount::mib(1),
        parts: Vec::new(),
    };
    let disk = Disk {
        path: "/dev/sda".into(),
        format: "raw".into(),
        virtual_size: ByteCount::mib(512),
        logical_sector_size: SectorSize::B512,
        identity: DiskIdentity::default(),
        layout: DiskLayout { volumes: vec![volume], ..DiskLayout::default() },
    };
    Machine { disks: vec![disk], ..Machine::default() }
}

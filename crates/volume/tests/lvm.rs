//! Volume groups made by LVM's own tools are put together, and what is not plain is copied whole.
//!
//! LVM takes block devices only: these tests need root and loop devices, and say so where they are not to be had.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{disk, extents, sh};
use tempfile::TempDir;
use volume::{Layout, detect_layout};

const MIB: u64 = 1 << 20;

/// Runs a script with LVM on two disks: `$A` and `$B` are loop devices over files `a` and `b`, `$C` is LVM's setting.
/// `None` where there are no loop devices.
fn lvm(folder: &Path, script: &str) -> Option<String> {
    let can = std::process::Command::new("losetup").arg("-f").output().is_ok_and(|o| o.status.success());
    if !can {
        println!("skipped: no loop devices");
        return None;
    }
    let prepared = format!(
        "cd $1; export LVM_SUPPRESS_FD_WARNINGS=1
         A=$(losetup --show -f a); trap 'losetup -d $A' EXIT
         B=$(losetup --show -f b); trap 'losetup -d $A $B' EXIT
         C=\"devices {{ filter=[\\\"a|^$A\\$|\\\",\\\"a|^$B\\$|\\\",\\\"r|.*|\\\"] use_devicesfile=0 }} backup {{ backup=0 archive=0 }} global {{ activation=0 }}\"
         l() {{ tool=$1; shift; $tool -qq --config \"$C\" \"$@\" 2>/dev/null; }}
         {script}"
    );
    Some(sh(&prepared, &[folder]))
}

/// Two disks with a group over both: `root` (ext4) spans them, `swap` is on the second, some extents are free.
fn made() -> Option<(TempDir, [PathBuf; 2])> {
    let folder = tempfile::tempdir().unwrap();
    sh("cd $1; truncate -s 64M a; truncate -s 48M b", &[folder.path()]);
    lvm(
        folder.path(),
        "l pvcreate $A; l pvcreate --pvmetadatacopies 2 $B; l vgcreate vg0 $A $B
         l lvcreate -an -Zn -Wn -y -l 17 -n root vg0; l lvcreate -an -Zn -Wn -y -l 3 -n swap vg0",
    )?;
    // What root would show: 15 extents of the first disk, 2 of the second.
    sh(
        "cd $1; truncate -s 68M r; mke2fs -qF -t ext4 -L root r; head -c 30000000 /dev/urandom > f; debugfs -w -R 'write f f' r 2>/dev/null
         dd if=r of=a bs=1M seek=1 count=60 conv=notrunc status=none
         dd if=r of=b bs=1M seek=1 skip=60 count=8 conv=notrunc status=none
         truncate -s 12M s; mkswap -L sw s >/dev/null 2>&1; dd if=s of=b bs=1M seek=9 conv=notrunc status=none",
        &[folder.path()],
    );
    let disks = [folder.path().join("a"), folder.path().join("b")];
    Some((folder, disks))
}

fn layout(disks: &[&PathBuf]) -> Layout {
    detect_layout(&disks.iter().map(|path| disk(path)).collect::<Vec<_>>()).unwrap()
}

#[test]
fn linear_volumes_over_two_disks_are_put_together() {
    let Some((folder, [a, b])) = made() else { return };
    let layout = layout(&[&a, &b]);
    assert_eq!(layout.warnings(), []);
    let [first, second] = layout.disks() else { panic!() };
    assert_eq!((first.volumes[0].kind.as_str(), second.volumes[0].kind.as_str()), ("LVM2_member", "LVM2_member"));
    let root = &first.volumes[0].parts[0];
    assert_eq!((root.name.as_str(), root.kind.as_str(), root.size.0), ("vg0/root", "ext4", 68 * MIB));
    assert_eq!(root.label.as_deref(), Some("root"));
    assert_eq!(root.uuid.as_deref(), Some(sh("blkid -p -s UUID -o value $1/r", &[folder.path()]).trim()));
    let facts = sh("dumpe2fs -h $1/r 2>/dev/null", &[folder.path()]);
    let number =
        |name: &str| -> u64 { facts.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().parse().unwrap() };
    let used = (number("Block count:") - number("Free blocks:")) * number("Block size:");
    assert_eq!(root.used_bytes.0, used);
    let swap = &second.volumes[0].parts[0];
    assert_eq!((swap.name.as_str(), swap.kind.as_str(), swap.used_bytes.0), ("vg0/swap", "swap", 4096));

    let segments: Vec<Vec<(usize, u64, u64)>> = layout
        .logical_volumes()
        .iter()
        .map(|lv| lv.segments.iter().map(|s| (s.disk, s.offset.0, s.length.0)).collect())
        .collect();
    assert_eq!(segments, [vec![(0, MIB, 60 * MIB), (1, MIB, 8 * MIB)], vec![(1, 9 * MIB, 12 * MIB)]]);

    // Free extents are not used; what is in front of the first extent and behind the last one is.
    let used = [extents(&*layout.used(0), 64 * MIB), extents(&*layout.used(1), 48 * MIB)];
    let total: u64 = used.iter().flatten().map(|(start, end)| end - start).sum();
    let outside = (MIB + 3 * MIB) + (MIB + 3 * MIB);
    assert_eq!(total, root.used_bytes.0 + 4096 + outside);
    assert_eq!(first.volumes[0].used_bytes.0 + second.volumes[0].used_bytes.0, total);
}

#[test]
fn a_copy_of_the_used_bytes_alone_is_the_same_group() {
    let Some((folder, [a, b])) = made() else { return };
    let before = layout(&[&a, &b]);
    let copies = [folder.path().join("copy-a"), folder.path().join("copy-b")];
    for (index, (from, to)) in [&a, &b].into_iter().zip(&copies).enumerate() {
        let source = std::fs::File::open(from).unwrap();
        let size = source.metadata().unwrap().len();
        let copy = std::fs::File::create(to).unwrap();
        copy.set_len(size).unwrap();
        for (start, end) in extents(&*before.used(index), size) {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            source.read_exact_at(&mut bytes, start).unwrap();
            copy.write_all_at(&bytes, start).unwrap();
        }
    }
    let after = layout(&[&copies[0], &copies[1]]);
    assert_eq!(after.disks(), before.disks());
    sh("cd $1; mv copy-a a; mv copy-b b; dd if=a of=r bs=1M skip=1 count=60 status=none; dd if=b of=r bs=1M skip=1 seek=60 count=8 status=none
        e2fsck -fn r >/dev/null 2>&1; debugfs -R 'dump f g' r 2>/dev/null; cmp f g", &[folder.path()]);
    let checked = lvm(
        folder.path(),
        "l vgck vg0 && l lvs --noheadings -o lv_name vg0; l pvck $A >/dev/null; l pvck $B > /dev/null",
    )
    .unwrap();
    assert!(checked.contains("root") && checked.contains("swap"), "{checked}");
}

/// All disks are copied whole, with a warning of these words.
fn whole(disks: &[&PathBuf], words: &str) {
    let layout = layout(disks);
    assert!(layout.warnings().iter().any(|w| w.text.contains(words)), "{words}: {:?}", layout.warnings());
    for (index, found) in layout.disks().iter().enumerate() {
        let size = std::fs::metadata(disks[index]).unwrap().len();
        assert_eq!(extents(&*layout.used(index), size), [(0, size)]);
        assert_eq!((found.volumes[0].used_bytes.0, found.volumes[0].parts.len()), (size, 0));
    }
    assert!(layout.logical_volumes().is_empty());
}

#[test]
fn a_group_with_a_missing_disk_is_copied_whole() {
    let Some((_folder, [a, b])) = made() else { return };
    whole(&[&a], "is missing, or there twice");
    whole(&[&b], "is missing, or there twice");
    whole(&[&a, &a, &b], "is missing, or there twice");
}

#[test]
fn a_group_with_segments_that_are_not_linear_is_copied_whole() {
    let Some((folder, [a, b])) = made() else { return };
    lvm(folder.path(), "l lvremove -f vg0/root; l lvcreate -an -Zn -Wn -y -i 2 -l 4 -n striped vg0").unwrap();
    whole(&[&a, &b], "are not linear");
}

#[test]
fn damaged_metadata_is_copied_whole() {
    let patch = |path: &Path, at: u64, bytes: &[u8]| {
        std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    };
    let Some((_folder, [a, b])) = made() else { return };
    patch(&a, 4096 + 48, &[0xff; 8]);
    whole(&[&a, &b], "header of a metadata area is damaged");
    let Some((_folder, [a, b])) = made() else { return };
    let mut header = [0; 512];
    std::fs::File::open(&a).unwrap().read_exact_at(&mut header, 4096).unwrap();
    let offset = u64::from_le_bytes(header[40..48].try_into().unwrap());
    patch(&a, 4096 + offset + 20, b"?");
    whole(&[&a, &b], "metadata text checksum");
    let Some((_folder, [a, b])) = made() else { return };
    sh("truncate -s 40M $1", &[&a]);
    whole(&[&a, &b], "is larger than what holds it");
}

#[test]
fn of_a_swap_volume_its_header_is_taken_hibernated_or_not_and_all_of_it_where_that_is_asked_for() {
    for hibernated in [false, true] {
        let Some((_folder, [a, b])) = made() else { return };
        if hibernated {
            std::fs::File::options()
                .write(true)
                .open(&b)
                .unwrap()
                .write_all_at(b"S1SUSPEND\0", 9 * MIB + 4086)
                .unwrap();
        }
        let layout = layout(&[&a, &b]);
        let physical = &layout.disks()[1].volumes[0];
        let swap = &physical.parts[0];
        assert_eq!(swap.kind, if hibernated { "swsuspend" } else { "swap" });
        assert_eq!((swap.used_bytes.0, physical.volume_group.as_deref()), (4096, Some("vg0")));
        let segment = swap.segments[0];
        assert_eq!((segment.disk, segment.offset.0, segment.length.0), (1, 9 * MIB, 12 * MIB));
        let used = extents(&*layout.used(1), 48 * MIB);
        assert!(support::holds(&used, 9 * MIB + 4095) && !support::holds(&used, 9 * MIB + 4096), "{used:x?}");
        let kept = extents(&*layout.used_with_swap(1), 48 * MIB);
        assert!(kept.iter().any(|&(start, end)| start <= 9 * MIB && 21 * MIB <= end), "{kept:x?}");
    }
}

//! The allocation map of exFAT is its bitmap, as exfatprogs and sleuthkit count it, and one that lies is copied whole.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::path::{Path, PathBuf};

use support::ntfs::{bytes_at, patch};
use support::{disk, extents, holds, sh, test_data};
use volume::detect_layout;

/// A filesystem with a bitmap of `bitmap` allocated bytes at its start; exFAT cannot be filled without a kernel that has it.
fn made(folder: &Path, size: &str, options: &str) -> PathBuf {
    let image = folder.join("exfat.img");
    sh(&format!("rm -f $1; truncate -s {size} $1; mkfs.exfat {options} -L named $1 >/dev/null"), &[&image]);
    image
}

/// What dump.exfat says of an image: bytes of a sector and of a cluster, all and free clusters, first sector of the heap.
fn dumped(image: &Path) -> [u64; 5] {
    let text = sh("dump.exfat $1", &[image]);
    let number = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.trim().starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit([' ', '\t']).next().unwrap().parse().unwrap()
    };
    let heap = number("Cluster Heap Offset");
    [1 << number("Sector Size Bits"), number("Cluster size"), number("Total Clusters"), number("Free Clusters"), heap]
}

fn assert_alike(image: &Path) -> u64 {
    let [sector, cluster, clusters, free, heap] = dumped(image);
    let size = std::fs::metadata(image).unwrap().len();
    let layout = detect_layout(&[disk(image)]).unwrap();
    let volume = &layout.disks()[0].volumes[0];
    println!("{} clusters of {cluster}, {free} free; {} bytes used", clusters, volume.used_bytes.0);
    let used = heap * sector + (clusters - free) * cluster;
    assert_eq!((layout.warnings(), volume.kind.as_str(), volume.used_bytes.0), (&[][..], "exfat", used));
    let found = extents(&*layout.used(0), size);
    let total: u64 = found.iter().map(|(start, end)| end - start).sum();
    assert_eq!(total, used + size - heap * sector - clusters * cluster);
    assert!(holds(&found, 0) && holds(&found, heap * sector - 1));
    used
}

#[test]
fn used_clusters_are_those_that_dump_exfat_has() {
    let folder = tempfile::tempdir().unwrap();
    let options = [
        ("32M", "-c 512"),
        ("64M", "-c 4096"),
        ("300M", "-c 128K"),
        ("300M", "-c 32M"),
        ("70M", "-c 8K --pack-bitmap"),
    ];
    for (size, options) in options {
        let image = made(folder.path(), size, options);
        println!("{options}");
        assert_alike(&image);
    }
}

#[test]
fn a_real_volume_has_the_used_clusters_that_the_manifest_has() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("exfat.img");
    sh("zstd -dq $1 -o $2", &[&data.join("disk/dfirntfs-exfat_win.raw.zst"), &image]);
    let layout = detect_layout(&[disk(&image)]).unwrap();
    let volume = &layout.disks()[0].volumes[0];
    let heap = u64::from(u32::from_le_bytes(bytes_at(&image, 88))) * 512;
    assert_eq!((layout.warnings(), volume.label.as_deref()), (&[][..], Some("test123")));
    assert_eq!(volume.used_bytes.0, heap + (12_032 - 5518) * 512);
    // Each allocated cluster, as sleuthkit lists the bitmap.
    let listed = sh("blkls -e -f exfat -l $1 | grep '|[af]$' || true", &[&image]);
    let found = extents(&*layout.used(0), 12_288 * 512);
    let mut compared = 0;
    for line in listed.lines() {
        let (sector, state) = line.split_once('|').unwrap();
        let Ok(sector) = sector.parse::<u64>() else { continue };
        if sector * 512 >= heap && sector < heap / 512 + 12_032 {
            compared += 1;
            assert_eq!(holds(&found, sector * 512), state == "a", "sector {sector}");
        }
    }
    println!("{compared} clusters compared");
    assert_eq!(compared, 12_032);
}

#[test]
fn an_exfat_that_lies_is_copied_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = &made(folder.path(), "64M", "-c 4096");
    let kept = std::fs::read(image).unwrap();
    let size = kept.len() as u64;
    let whole = |words: &str| {
        let layout = detect_layout(&[disk(image)]).unwrap();
        assert!(layout.warnings().iter().any(|w| w.text.contains(words)), "{words}: {:?}", layout.warnings());
        let size = std::fs::metadata(image).unwrap().len();
        assert_eq!(extents(&*layout.used(0), size), [(0, size)], "{words}");
        std::fs::write(image, &kept).unwrap();
    };
    patch(image, 106, &[2]);
    whole("not cleanly unmounted");
    patch(image, 100, &[9]);
    whole("checksum of its boot region");
    patch(image, 72, &(size / 512 + 1).to_le_bytes());
    whole("ends beyond its volume");
    patch(image, 110, &[2]);
    whole("allocation table");
    let heap = u64::from(u32::from_le_bytes(bytes_at(image, 88))) * 512;
    let root = heap + u64::from(u32::from_le_bytes(bytes_at(image, 96)) - 2) * 4096;
    let entry = (0..64).map(|n| root + n * 32).find(|&at| bytes_at::<1>(image, at) == [0x81]).unwrap();
    let bitmap = heap + u64::from(u32::from_le_bytes(bytes_at(image, entry + 20)) - 2) * 4096;
    patch(image, bitmap, &[0xfe]);
    whole("marks cluster 2 free");
    patch(image, entry + 24, &[7, 0]);
    whole("its bitmap has 7 bytes");
    patch(image, entry, &[1]);
    whole("names no bitmap");
    std::fs::OpenOptions::new().write(true).open(image).unwrap().set_len(size - 4096).unwrap();
    whole("ends beyond its volume");
}

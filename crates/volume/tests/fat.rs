//! The allocation map of FAT is that of fsck.fat, its files are those that mtools wrote, and one that lies is copied
//! whole.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::ByteCount;
use support::{disk, extents, sh};
use tempfile::TempDir;
use volume::files::Files;
use volume::{ErrorKind, detect_layout};

const VARIANTS: [&str; 5] = ["-F 12 -s 64", "-F 16", "-F 16 -r 1024 -f 1", "-F 32", "-F 32 -s 1 -f 1"];

/// A filesystem of 40 MiB with files, some deleted again.
fn made(options: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sh(
        &format!(
            "truncate -s 41000K $1; mkfs.vfat {options} $1 >/dev/null 2>&1
             mmd -i $1 ::/EFI ::/EFI/debian ::/many
             for i in 1 2 3; do head -c $((i * 700001)) /dev/urandom > $1.$i; mcopy -i $1 $1.$i \"::/EFI/debian/Grub x64 number $i.efi\"; done
             mcopy -i $1 $1.1 ::/EFI/debian/SHIM.EFI
             mkdir $1.d; for i in $(seq 80); do : > $1.d/a-name-that-is-long-$i; done; mcopy -i $1 $1.d/* ::/many
             mdel -i $1 '::/EFI/debian/Grub x64 number 2.efi'"
        ),
        &[&image],
    );
    (folder, image)
}

#[test]
fn used_clusters_are_those_that_fsck_has() {
    for options in VARIANTS {
        let (_folder, image) = made(options);
        let text = sh("fsck.fat -vn $1", &[&image]);
        let number = |line: &str| {
            text.lines().find(|l| l.contains(line)).unwrap().trim().split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let counts = text.lines().last().unwrap().rsplit(' ').nth(1).unwrap();
        let used: u64 = counts.split('/').next().unwrap().parse().unwrap();
        let data = text.lines().find(|l| l.contains("Data area starts at byte")).unwrap();
        let data: u64 = data.split("byte ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let (cluster, clusters): (u64, u64) =
            (number("bytes per cluster"), counts.split('/').nth(1).unwrap().parse().unwrap());
        let layout = detect_layout(&[disk(&image)]).unwrap();
        assert_eq!(layout.warnings(), [], "{options}");
        let sectors =
            text.lines().find(|l| l.trim().ends_with("sectors total")).map(|_| number("sectors total")).unwrap();
        let sector = number("bytes per logical sector");
        // What is left behind the last cluster is less than one.
        let rest = sectors * sector - data - clusters * cluster;
        assert_eq!(layout.disks()[0].volumes[0].used_bytes.0, data + used * cluster + rest, "{options}");
        let size = layout.disks()[0].volumes[0].size.0;
        let total: u64 = extents(&*layout.used(0), size).iter().map(|(start, end)| end - start).sum();
        assert_eq!(total, data + used * cluster + size - data - clusters * cluster, "{options}");
    }
}

#[test]
fn an_image_of_its_used_clusters_alone_has_all_files() {
    for options in VARIANTS {
        let (folder, image) = made(options);
        let layout = detect_layout(&[disk(&image)]).unwrap();
        let source = std::fs::File::open(&image).unwrap();
        let path = folder.path().join("copy");
        let copy = std::fs::File::create(&path).unwrap();
        copy.set_len(source.metadata().unwrap().len()).unwrap();
        for (start, end) in extents(&*layout.used(0), source.metadata().unwrap().len()) {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            source.read_exact_at(&mut bytes, start).unwrap();
            copy.write_all_at(&bytes, start).unwrap();
        }
        sh(
            "fsck.fat -n $1 >/dev/null; mcopy -i $1 '::/EFI/debian/Grub x64 number 3.efi' $1.out; cmp $1.out $2.3",
            &[&path, &image],
        );
    }
}

#[test]
fn files_are_those_that_mtools_wrote() {
    for options in VARIANTS {
        let (_folder, image) = made(options);
        let files = Files::open(disk(&image)).unwrap();
        let names: Vec<_> = files.list("/efi/DEBIAN").unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["Grub x64 number 1.efi", "Grub x64 number 3.efi", "SHIM.EFI"], "{options}");
        assert_eq!(files.list("/many").unwrap().len(), 80);
        let third = std::fs::read(image.with_extension("3")).unwrap();
        assert!(files.read("/EFI/debian/grub X64 number 3.efi", ByteCount::mib(3)).unwrap() == third);
        assert_eq!(files.metadata("/EFI/debian/SHIM.EFI").unwrap().size, ByteCount(700_001));
        let kind = |result: volume::Result<Vec<u8>>| result.unwrap_err().kind;
        assert_eq!(kind(files.read("/EFI/debian/SHIM.EFI", ByteCount(700_000))), ErrorKind::TooLarge);
        assert_eq!(kind(files.read("/EFI/nothing", ByteCount(1))), ErrorKind::NotFound);
        assert_eq!(kind(files.read("/EFI/debian", ByteCount(1))), ErrorKind::Unsupported);
    }
}

fn patch(image: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn a_fat_that_lies_is_copied_whole() {
    let u16_at = |image: &Path, at: u64| {
        let mut bytes = [0; 2];
        std::fs::File::open(image).unwrap().read_exact_at(&mut bytes, at).unwrap();
        u64::from(u16::from_le_bytes(bytes))
    };
    let whole = |image: &Path, words: &str| {
        let layout = detect_layout(&[disk(image)]).unwrap();
        assert!(layout.warnings().iter().any(|w| w.text.contains(words)), "{words}: {:?}", layout.warnings());
        let size = layout.disks()[0].volumes[0].size.0;
        assert_eq!(extents(&*layout.used(0), size), [(0, size)]);
        assert_eq!(layout.disks()[0].volumes[0].used_bytes.0, size);
    };
    let (_folder, image) = made("-F 16");
    let (fat, length) = (u16_at(&image, 14) * 512, u16_at(&image, 22) * 512);
    patch(&image, fat + 1000, &[0xff, 0xff]);
    whole(&image, "copies of its allocation table differ");
    let (_folder, image) = made("-F 16");
    for copy in [fat, fat + length] {
        patch(&image, copy + 1000, &0xff00u16.to_le_bytes());
    }
    whole(&image, "which does not exist");
    let (_folder, image) = made("-F 16");
    for copy in [fat, fat + length] {
        patch(&image, copy + 2, &[0xff, 0x7f]);
    }
    whole(&image, "not cleanly unmounted");
    let (_folder, image) = made("-F 32 -s 1");
    patch(&image, 65, &[1]);
    whole(&image, "not cleanly unmounted");
    let (_folder, image) = made("-F 32 -s 1");
    for copy in [32 * 512, 32 * 512 + u16_at(&image, 36) * 512] {
        patch(&image, copy + 8, &[0; 4]);
    }
    whole(&image, "marks the root directory free");
    let (_folder, image) = made("-F 32 -s 1");
    sh("truncate -s 36M $1", &[&image]);
    // Alone on a disk it would be no FAT for a table's sake; what matters is that all is used.
    let layout = detect_layout(&[disk(&image)]).unwrap();
    assert_eq!(extents(&*layout.used(0), 36 << 20), [(0, 36 << 20)]);
}

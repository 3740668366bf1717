//! Partition tables are read as sfdisk and fdisk wrote them, and hostile ones are refused with one error.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine::{PartitionTable, SectorSize};
use support::{disk, disk_with, extents, holds, sh, test_data};
use tempfile::TempDir;
use volume::table::{Table, load_table};
use volume::{ErrorKind, detect_layout};

const MIB: u64 = 1 << 20;

/// A disk image of `size` MiB partitioned by an sfdisk script.
fn partitioned(size: u64, script: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    let script = format!("truncate -s {size}M $1; printf '{script}' | sfdisk -q $1 2>/dev/null");
    sh(&script, &[&image]);
    (folder, image)
}

/// Number, first byte and length of each partition as sfdisk tells them, without extended ones.
fn sfdisk(image: &Path) -> Vec<(u32, u64, u64)> {
    let dump = sh("sfdisk -d $1", &[image]);
    let field = |line: &str, name: &str| -> String {
        line.split_once(&format!("{name}=")).unwrap().1.trim_start().split(',').next().unwrap().trim().to_owned()
    };
    let mut found: Vec<(u32, u64, u64)> = dump
        .lines()
        .filter(|line| line.contains("start="))
        .filter(|line| !["5", "f", "85"].contains(&field(line, "type").as_str()))
        .map(|line| {
            let name = line.split_once(" :").unwrap().0.trim();
            let number = name.strip_prefix(image.to_str().unwrap()).unwrap().parse().unwrap();
            let sectors = |name: &str| field(line, name).parse::<u64>().unwrap() * 512;
            (number, sectors("start"), sectors("size"))
        })
        .collect();
    found.sort_by_key(|&(_, start, _)| start);
    found
}

fn partitions(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.extent.start().0, p.extent.length().0)).collect()
}

fn write(image: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

fn read(image: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    std::fs::File::open(image).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn refused(image: &Path, words: &str) {
    let error = load_table(&*disk(image)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(detect_layout(&[disk(image)]).is_err());
}

const LOGICAL: &str = "label: dos\\nsize=4M,type=83,bootable\\nsize=4M,type=7\\nsize=4M,type=83\\nsize=40M,type=5\\n\
                       size=4M,type=83\\nsize=4M,type=82\\nsize=4M,type=83\\n";
const GPT: &str = "label: gpt\\nsize=8M,type=uefi\\nsize=8M\\nsize=8M,type=swap\\n";

#[test]
fn logical_partitions_are_read_as_sfdisk_wrote_them() {
    let (_folder, image) = partitioned(64, LOGICAL);
    let table = load_table(&*disk(&image)).unwrap();
    assert_eq!(table.kind, PartitionTable::Mbr);
    assert_eq!(partitions(&table), sfdisk(&image));
    assert_eq!(table.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 3, 5, 6, 7]);
    let id = sh("sfdisk --disk-id $1", &[&image]).trim().replace("0x", "");
    assert_eq!(table.id.as_deref(), Some(id.as_str()));
    assert_eq!(table.partitions[4].uuid, Some(format!("{id}-06")));
    assert_eq!((table.partitions[0].active, table.partitions[2].active), (true, false));
}

#[test]
fn gpt_is_read_as_sfdisk_wrote_it() {
    let (_folder, image) = partitioned(64, GPT);
    let table = load_table(&*disk(&image)).unwrap();
    assert_eq!((table.kind, &table.warnings[..]), (PartitionTable::Gpt, &[][..]));
    assert_eq!(partitions(&table), sfdisk(&image));
    assert_eq!(table.id.unwrap(), sh("sfdisk --disk-id $1", &[&image]).trim().to_lowercase());
    assert_eq!(table.partitions[0].type_id, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
    let uuid = sh("sfdisk --part-uuid $1 2", &[&image]).trim().to_lowercase();
    assert_eq!(table.partitions[1].uuid.as_deref(), Some(uuid.as_str()));
}

#[test]
fn gpt_of_4096_byte_sectors_is_read_whatever_the_image_says() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sh("truncate -s 64M $1; printf 'g\\nn\\n1\\n\\n+8M\\nn\\n2\\n\\n\\nw\\n' | fdisk -b 4096 $1 >/dev/null", &[&image]);
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let table = load_table(&*disk_with(&image, sector_size)).unwrap();
        assert_eq!(table.sector_size, Some(SectorSize::B4096));
        assert_eq!(partitions(&table)[0], (1, MIB, 8 * MIB));
        assert_eq!(table.partitions.len(), 2);
    }
    write(&image, 4096, &[0; 4096]);
    assert_eq!(load_table(&*disk(&image)).unwrap().partitions.len(), 2);
}

#[test]
fn backup_gpt_is_used_when_the_primary_is_damaged() {
    let (_folder, image) = partitioned(64, GPT);
    let expected = partitions(&load_table(&*disk(&image)).unwrap());
    for (at, bytes) in [(2 * 512 + 40, &[1u8][..]), (512 + 60, &[0xff]), (512, &[0; 512])] {
        write(&image, at, bytes);
        let table = load_table(&*disk(&image)).unwrap();
        assert_eq!(partitions(&table), expected);
        assert!(table.warnings[0].contains("primary GPT is damaged"), "{:?}", table.warnings);
    }
    write(&image, 64 * MIB - 512, &[0; 8]);
    refused(&image, "no usable backup");
}

#[test]
fn a_damaged_backup_gpt_is_a_warning() {
    let (_folder, image) = partitioned(64, GPT);
    write(&image, 64 * MIB - 512, &[0; 512]);
    let table = load_table(&*disk(&image)).unwrap();
    assert_eq!(table.partitions.len(), 3);
    assert!(table.warnings[0].contains("backup GPT is damaged"), "{:?}", table.warnings);
}

#[test]
fn a_hybrid_mbr_is_read_as_gpt() {
    let (_folder, image) = partitioned(64, GPT);
    sh("sgdisk -h 2:EE $1 >/dev/null", &[&image]);
    let table = load_table(&*disk(&image)).unwrap();
    assert_eq!((table.kind, table.partitions.len()), (PartitionTable::Gpt, 3));
}

#[test]
fn a_real_mbr_wins_over_remains_of_a_gpt() {
    let (_folder, image) = partitioned(64, GPT);
    let mut entry = [0; 16];
    (entry[4], entry[9], entry[13]) = (0x83, 8, 16);
    write(&image, 0x1be, &entry);
    write(&image, 0x1ce, &[0; 48]);
    let table = load_table(&*disk(&image)).unwrap();
    assert_eq!((table.kind, partitions(&table)), (PartitionTable::Mbr, vec![(1, MIB, 2 * MIB)]));
}

/// Writes the checksums of a primary GPT anew, so that only what it says is wrong.
fn sign(image: &Path) {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    };
    let entries = read(image, 1024, 128 * 128);
    write(image, 512 + 88, &crc(&entries).to_le_bytes());
    write(image, 512 + 16, &[0; 4]);
    let header = read(image, 512, 92);
    write(image, 512 + 16, &crc(&header).to_le_bytes());
}

#[test]
fn overlapping_gpt_entries_are_refused() {
    let (_folder, image) = partitioned(64, GPT);
    let first = read(&image, 1024 + 32, 8);
    write(&image, 1024 + 128 + 32, &first);
    sign(&image);
    refused(&image, "overlaps");
}

#[test]
fn gpt_entries_beyond_the_usable_sectors_are_refused() {
    let (_folder, image) = partitioned(64, GPT);
    write(&image, 1024 + 256 + 40, &(u64::MAX - 1).to_le_bytes());
    sign(&image);
    refused(&image, "GPT entry 3");
    write(&image, 512 + 48, &u64::MAX.to_le_bytes());
    sign(&image);
    refused(&image, "GPT entry 3");
}

#[test]
fn gpt_with_absurd_entry_sizes_is_refused() {
    for (at, value) in [(80, 0), (80, u32::MAX), (84, 0), (84, 100), (84, u32::MAX), (12, u32::MAX)] {
        let (_folder, image) = partitioned(64, GPT);
        write(&image, 512 + at, &value.to_le_bytes());
        write(&image, 64 * MIB - 512, &[0; 512]);
        if at != 12 {
            sign(&image);
        }
        refused(&image, "GPT");
    }
}

#[test]
fn truncated_disks_are_refused() {
    let (_folder, image) = partitioned(64, LOGICAL);
    sh("truncate -s 30M $1", &[&image]);
    refused(&image, "truncated");
    let (_folder, image) = partitioned(64, GPT);
    sh("truncate -s 20M $1", &[&image]);
    refused(&image, "truncated");
    let (_folder, image) = partitioned(64, GPT);
    write(&image, 512, &[0; 512]);
    sh("truncate -s 20M $1", &[&image]);
    refused(&image, "truncated");
}

#[test]
fn overlapping_mbr_entries_are_refused() {
    let (_folder, image) = partitioned(64, LOGICAL);
    let first = read(&image, 0x1be + 8, 4);
    write(&image, 0x1ce + 8, &first);
    refused(&image, "overlaps");
}

#[test]
fn hostile_chains_of_logical_partitions_are_refused() {
    let fresh = || {
        let (folder, image) = partitioned(64, LOGICAL);
        let extended = u64::from(u32::from_le_bytes(read(&image, 0x1ee + 8, 4).try_into().unwrap())) * 512;
        let link = u64::from(u32::from_le_bytes(read(&image, extended + 0x1ce + 8, 4).try_into().unwrap())) * 512;
        (folder, image, extended, extended + link)
    };
    let (_folder, image, extended, second) = fresh();
    write(&image, second + 0x1ce + 8, &((second - extended) / 512).to_le_bytes()[..4]);
    refused(&image, "loops");
    let (_folder, image, extended, _) = fresh();
    write(&image, extended + 0x1ce + 8, &[0; 4]);
    refused(&image, "loops");
    let (_folder, image, extended, _) = fresh();
    write(&image, extended + 0x1ce + 8, &u32::MAX.to_le_bytes());
    refused(&image, "leaves its extended partition");
    let (_folder, image, _, second) = fresh();
    write(&image, second + 510, &[0, 0]);
    refused(&image, "expected 55aa, found 0000");
    let (_folder, image, extended, _) = fresh();
    write(&image, extended + 0x1be + 12, &u32::MAX.to_le_bytes());
    refused(&image, "logical partition 5");
    let (_folder, image, extended, _) = fresh();
    write(&image, extended + 0x1be + 8, &[0; 4]);
    refused(&image, "logical partition 5");
    // The first logical partition is made to reach over the second boot record and partition.
    let (_folder, image, extended, _) = fresh();
    write(&image, extended + 0x1be + 12, &(6 * MIB / 512).to_le_bytes()[..4]);
    refused(&image, "inside logical partition 5");
}

#[test]
fn filesystems_without_a_table_are_no_mbr() {
    let folder = tempfile::tempdir().unwrap();
    for (command, kind) in [
        ("mkfs.vfat -F 12 -s 64", "vfat"),
        ("mkfs.vfat -F 16", "vfat"),
        ("mkfs.vfat -F 32", "vfat"),
        ("mkfs.ext4 -qF", "ext4"),
        ("mkswap", "swap"),
    ] {
        let image = folder.path().join("disk");
        sh(&format!("rm -f $1; truncate -s 64M $1; {command} $1 >/dev/null 2>&1"), &[&image]);
        let layout = detect_layout(&[disk(&image)]).unwrap();
        let [found] = layout.disks() else { panic!() };
        assert_eq!((found.partition_table, found.volumes.len()), (PartitionTable::None, 1), "{command}");
        assert_eq!((found.volumes[0].kind.as_str(), found.volumes[0].number), (kind, None));
        assert_eq!((found.volumes[0].offset.0, found.volumes[0].size.0), (0, 64 * MIB));
    }
}

#[test]
fn a_boot_sector_in_front_of_a_filesystem_is_no_partition_table() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sh("truncate -s 64M $1; mkfs.ext4 -qF $1", &[&image]);
    write(&image, 510, &[0x55, 0xaa]);
    let layout = detect_layout(&[disk(&image)]).unwrap();
    assert_eq!(layout.disks()[0].partition_table, PartitionTable::None);
    assert_eq!(layout.disks()[0].volumes[0].kind, "ext4");
}

#[test]
fn an_mbr_whose_partition_is_fat_is_no_fat_disk() {
    let (_folder, image) = partitioned(64, "label: dos\\nsize=40M,type=c,bootable\\n");
    sh("mkfs.vfat --offset 2048 $1 40960 >/dev/null", &[&image]);
    let layout = detect_layout(&[disk(&image)]).unwrap();
    assert_eq!(layout.disks()[0].partition_table, PartitionTable::Mbr);
    assert_eq!(layout.disks()[0].volumes[0].kind, "vfat");
}

#[test]
fn an_empty_disk_has_nothing_and_is_copied_whole() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    for size in [0, 511, 512, MIB] {
        sh(&format!("truncate -s {size} $1"), &[&image]);
        let layout = detect_layout(&[disk(&image)]).unwrap();
        assert_eq!((layout.disks()[0].partition_table, layout.disks()[0].volumes.len()), (PartitionTable::None, 0));
        let used = extents(&*layout.used(0), size);
        assert_eq!(used, if size == 0 { vec![] } else { vec![(0, size)] });
    }
}

#[test]
fn whatever_is_in_no_partition_is_used() {
    for script in [LOGICAL, GPT] {
        let (_folder, image) = partitioned(64, script);
        // Empty volumes would be unknown and whole; swap uses its first page only.
        let table = load_table(&*disk(&image)).unwrap();
        for partition in &table.partitions {
            let (start, length) = (partition.extent.start().0 / 512, partition.extent.length().0 / 512);
            let script = format!(
                "truncate -s {}K $1.s; mkswap $1.s >/dev/null 2>&1; dd if=$1.s of=$1 bs=512 seek={start} conv=notrunc status=none; rm $1.s",
                length / 2
            );
            sh(&script, &[&image]);
        }
        let layout = detect_layout(&[disk(&image)]).unwrap();
        let used = extents(&*layout.used(0), 64 * MIB);
        for at in (0..64 * MIB).step_by(512) {
            let inside = table.partitions.iter().find(|p| p.extent.start().0 <= at && at < p.extent.end().0);
            let expected = inside.is_none_or(|p| at - p.extent.start().0 < 4096);
            assert_eq!(holds(&used, at), expected, "byte {at:#x}");
        }
        for volume in &layout.disks()[0].volumes {
            assert_eq!((volume.kind.as_str(), volume.used_bytes.0), ("swap", 4096));
        }
    }
}

#[test]
fn real_disks_have_the_partitions_that_other_tools_saw() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let unpack = |name: &str| {
        let image = folder.path().join("disk");
        sh("zstd -dqf --long=27 $1 -o $2", &[&data.join("disk").join(name), &image]);
        image
    };
    let starts = |table: &Table, sector: u64| -> Vec<(u32, u64, u64)> {
        partitions(table).into_iter().map(|(n, start, length)| (n, start / sector, length / sector)).collect()
    };
    let table = load_table(&*disk(&unpack("gpt_non_sequential.raw.zst"))).unwrap();
    assert_eq!(table.partitions.iter().map(|p| p.extent.start().0 / 512).collect::<Vec<_>>(), [2048, 6144]);
    let table = load_table(&*disk(&unpack("dfirntfs-gpt-512-3p.raw.zst"))).unwrap();
    assert_eq!(starts(&table, 512), [(1, 34, 31), (2, 65, 64), (3, 129, 1886)]);
    let table = load_table(&*disk(&unpack("gpt_empty_with_mbr.raw.zst"))).unwrap();
    assert_eq!((table.kind, starts(&table, 512)), (PartitionTable::Mbr, vec![(1, 48, 257)]));
    let table = load_table(&*disk(&unpack("mbr.raw.zst"))).unwrap();
    assert_eq!(starts(&table, 512), [(1, 1, 129), (5, 131, 129)]);
    assert_eq!(table.id.as_deref(), Some("df7c7c37"));
}

//! Entry points for fuzzing: one function a parser, which takes what a disk would hold and must neither panic nor loop
//! nor allocate without bound, whatever the bytes. Each also checks what it gets against the contracts.

mod sparse;

use std::path::Path;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Extent, MemorySource};
use machine::{ByteCount, ByteOffset, SectorSize};

use crate::files::{FileKind, Files};
use crate::raid::{Candidate, assemble};

/// Bytes of files that are read at most.
const READ_MAX: ByteCount = ByteCount::mib(1);

pub use sparse::sparse_disk;

/// A disk of just these bytes.
pub fn disk(bytes: &[u8]) -> Arc<dyn BlockSource> {
    Arc::new(MemorySource::new(bytes.to_vec(), SectorSize::B512))
}

/// Extents must ascend without touching and stay inside; anywhere to begin must do.
fn walk(map: &dyn AllocationMap, size: u64) {
    let mut end = None;
    for extent in map.extents(Extent::first(ByteCount(size))).map_while(Result::ok) {
        assert!(end.is_none_or(|end| extent.start() > end) && !extent.is_empty() && extent.end().0 <= size);
        end = Some(extent.end());
    }
    let later = Extent::between(ByteOffset(size / 2 + 1), ByteOffset(size));
    assert!(map.extents(later).map_while(Result::ok).all(|e| later.contains(e) && !e.is_empty()));
}

/// Partition tables.
pub fn table(disk: &dyn BlockSource) {
    if let Ok(table) = crate::table::load_table(disk) {
        assert!(table.partitions.windows(2).all(|p| p[0].extent.end() <= p[1].extent.start()));
        assert!(table.partitions.iter().all(|p| p.extent.end().0 <= disk.size().0));
    }
}

/// Superblock probes.
pub fn probe(disk: &dyn BlockSource) {
    crate::probe::probe(disk);
}

/// Allocation maps of ext2/3/4, FAT, exFAT, NTFS and swap, whichever the bytes are.
pub fn map(disk: &Arc<dyn BlockSource>) {
    let content = crate::content::load_content(disk);
    assert!(content.used <= disk.size());
    walk(&*content.map, disk.size().0);
}

/// Metadata of firmware RAID of both kinds, with lengths and checksums put right.
pub fn firmware_raid(bytes: &[u8]) {
    intel_raid(bytes);
    ddf_raid(bytes);
}

/// Bytes of a member.
const DISK: usize = 64 << 10;

/// Whatever was put together can be read.
fn read_arrays(candidates: &[Candidate]) {
    for array in &assemble(candidates).arrays {
        let size = array.source.size().0;
        assert!(size <= (candidates.len() * DISK) as u64 && !array.members.is_empty());
        for at in [0, size / 2, size.saturating_sub(5000)] {
            let mut buffer = vec![0; usize::try_from(size - at).unwrap_or(0).min(5000)];
            assert!(array.source.read_at(ByteOffset(at), &mut buffer).is_ok());
        }
    }
}

/// Three disks that say the same, but for their numbers.
fn ddf_raid(bytes: &[u8]) {
    let piece = |n: usize, length: usize| {
        let mut piece = bytes.get(n..).unwrap_or_default().to_vec();
        piece.resize(length, 0xff);
        piece
    };
    let (physical, volumes, records) = (piece(0, 1024), piece(1024, 1024), piece(2048, 4096));
    let candidates = [0, 1, 2].map(|number| {
        let bytes = ddf_disk(vec![0; DISK], number, &physical, &volumes, &records);
        Candidate { source: disk(&bytes), serial: None }
    });
    read_arrays(&candidates);
}

/// A disk with DDF metadata behind its first 64 sectors: 1024 bytes each of disks and of volumes, 4096 of records of 1024, which
/// are unused where they begin with ones.
pub(crate) fn ddf_disk(mut disk: Vec<u8>, number: u32, physical: &[u8], volumes: &[u8], records: &[u8]) -> Vec<u8> {
    const AT: usize = 64;
    let seal = |section: &mut [u8], magic: u32| {
        section[..4].copy_from_slice(&magic.to_be_bytes());
        section[4..8].fill(0xff);
        let crc = crate::checksum::crc32(0, section);
        section[4..8].copy_from_slice(&crc.to_be_bytes());
    };
    let mut header = [0; 512];
    header[8..32].fill(b'g');
    header[43] = 1;
    header[96..104].copy_from_slice(&(AT as u64).to_be_bytes());
    header[104..112].fill(0xff);
    (header[135], header[137]) = (2, 42);
    for (place, [offset, length]) in [(200, [1, 2]), (208, [3, 2]), (216, [5, 8]), (224, [13, 1])] {
        (header[place + 3], header[place + 7]) = (offset, length);
    }
    seal(&mut header, 0xde11_de11);
    let (mut physical, mut volumes, mut records) = (physical.to_vec(), volumes.to_vec(), records.to_vec());
    seal(&mut physical, 0x2222_2222);
    seal(&mut volumes, 0xdddd_dddd);
    records.chunks_mut(1024).filter(|record| record[0] != 0xff).for_each(|record| seal(record, 0xeeee_eeee));
    let mut own = [0; 512];
    own[32..36].copy_from_slice(&number.to_be_bytes());
    seal(&mut own, 0x3333_3333);
    for (sector, section) in [(0, &header[..]), (1, &physical), (3, &volumes), (5, &records), (13, &own)] {
        let at = (AT + sector) * 512;
        disk[at..at + section.len()].copy_from_slice(section);
    }
    let last = disk.len() - 512;
    disk[last..].copy_from_slice(&header);
    disk
}

/// On three disks, of which one has no serial number.
fn intel_raid(bytes: &[u8]) {
    let mut metadata = bytes[..bytes.len().min(8 << 10)].to_vec();
    metadata.resize(metadata.len().next_multiple_of(4).max(0x108), 0);
    metadata[..24].copy_from_slice(b"Intel Raid ISM Cfg Sig. ");
    let length = u32::try_from(metadata.len()).unwrap_or(0);
    metadata[0x24..0x28].copy_from_slice(&length.to_le_bytes());
    metadata[0x20..0x24].fill(0);
    let sum = metadata.chunks_exact(4).fold(0_u32, |sum, word| sum.wrapping_add(crate::field::le32(word, 0)));
    metadata[0x20..0x24].copy_from_slice(&sum.to_le_bytes());
    let mut whole = vec![0; DISK];
    let (anchor, more) = metadata.split_at(metadata.len().min(512));
    let at = DISK - 1024;
    whole[at..at + anchor.len()].copy_from_slice(anchor);
    let before = at - more.len().next_multiple_of(512);
    whole[before..before + more.len()].copy_from_slice(more);
    for serials in [[Some("S0"), Some("S1"), Some("S2")], [Some("S0"), None, None]] {
        let candidates = serials.map(|serial| Candidate { source: disk(&whole), serial: serial.map(str::to_owned) });
        read_arrays(&candidates);
    }
}

/// LVM2 metadata text.
pub fn lvm_text(bytes: &[u8]) {
    if let Ok(group) = crate::lvm::parse_group(bytes) {
        assert!(group.extent_bytes > 0);
    }
}

/// A whole disk: table, volumes, volume groups, merged map.
pub fn layout(disk: &Arc<dyn BlockSource>) {
    if let Ok(layout) = crate::layout::detect_layout(std::slice::from_ref(disk)) {
        walk(&*layout.used(0), disk.size().0);
    }
}

/// Files of ext2/3/4, NTFS and FAT: every directory down to a few levels, some bytes of every file.
pub fn files(disk: &Arc<dyn BlockSource>) {
    if let Ok(files) = Files::open(Arc::clone(disk)) {
        let mut left = 500;
        visit(&files, Path::new("/"), 4, &mut left);
    }
}

fn visit(files: &Files, path: &Path, depth: usize, left: &mut usize) {
    for entry in files.list(path).unwrap_or_default() {
        if *left == 0 || depth == 0 {
            return;
        }
        *left -= 1;
        let path = path.join(&entry.name);
        let Ok(metadata) = files.metadata(&path) else { continue };
        match metadata.kind {
            FileKind::Directory => visit(files, &path, depth - 1, left),
            FileKind::Symlink => drop(files.read_link(&path)),
            _ => {
                if let Ok(bytes) = files.read(&path, READ_MAX) {
                    assert_eq!(bytes.len() as u64, files.target_metadata(&path).map_or(0, |m| m.size.0));
                }
                drop(files.read_range(&path, metadata.size.0 / 2, 4096));
            }
        }
    }
}

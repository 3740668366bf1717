//! Entry points for fuzzing: one function a parser, which takes what a disk would hold and must neither panic nor loop
//! nor allocate without bound, whatever the bytes. Each also checks what it gets against the contracts.

use std::path::Path;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Extent, MemorySource};
use machine::{ByteCount, SectorSize};

use crate::files::{FileKind, Files};

/// Bytes of files that are read at most.
const READ_MAX: ByteCount = ByteCount::mib(1);

fn disk(bytes: &[u8]) -> Arc<dyn BlockSource> {
    Arc::new(MemorySource::new(bytes.to_vec(), SectorSize::B512))
}

/// Extents must ascend without touching and stay inside; anywhere to begin must do.
fn walk(map: &dyn AllocationMap, size: u64) {
    let mut end = None;
    for extent in map.extents(Extent::first(ByteCount(size))).map_while(Result::ok) {
        assert!(end.is_none_or(|end| extent.start() > end) && !extent.is_empty() && extent.end().0 <= size);
        end = Some(extent.end());
    }
    let later = Extent::between(machine::ByteOffset(size / 2 + 1), machine::ByteOffset(size));
    assert!(map.extents(later).map_while(Result::ok).all(|e| later.contains(e) && !e.is_empty()));
}

/// Partition tables.
pub fn table(bytes: &[u8]) {
    let disk = disk(bytes);
    if let Ok(table) = crate::table::load_table(&*disk) {
        assert!(table.partitions.windows(2).all(|p| p[0].extent.end() <= p[1].extent.start()));
        assert!(table.partitions.iter().all(|p| p.extent.end().0 <= disk.size().0));
    }
}

/// Superblock probes.
pub fn probe(bytes: &[u8]) {
    crate::probe::probe(&*disk(bytes));
}

/// Allocation maps of ext2/3/4, FAT and swap, whichever the bytes are.
pub fn map(bytes: &[u8]) {
    let disk = disk(bytes);
    let content = crate::content::load_content(&disk);
    assert!(content.used <= disk.size());
    walk(&*content.map, disk.size().0);
}

/// LVM2 metadata text.
pub fn lvm_text(bytes: &[u8]) {
    if let Ok(group) = crate::lvm::parse_group(bytes) {
        assert!(group.extent_bytes > 0);
    }
}

/// A whole disk: table, volumes, volume groups, merged map.
pub fn layout(bytes: &[u8]) {
    let disk = disk(bytes);
    if let Ok(layout) = crate::layout::detect_layout(std::slice::from_ref(&disk)) {
        walk(&*layout.used(0), disk.size().0);
    }
}

/// Files of ext2/3/4 and FAT: every directory down to a few levels, some bytes of every file.
pub fn files(bytes: &[u8]) {
    if let Ok(files) = Files::open(disk(bytes)) {
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

//! What the tests share: files as disks, real tools, real data.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses its own part

pub(crate) mod ntfs;
#[path = "../../../block/tests/support/test_data.rs"]
mod test_data;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use block::{AllocationMap, BlockSource, Extent};
use machine::{ByteCount, ByteOffset, SectorSize};

#[allow(unused_imports)] // not each test program needs it
pub(crate) use test_data::test_data;

/// A file read as a disk.
pub struct FileDisk {
    file: File,
    size: u64,
    sector_size: SectorSize,
}

impl BlockSource for FileDisk {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }
    fn logical_sector_size(&self) -> SectorSize {
        self.sector_size
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> block::Result<()> {
        block::check_bounds(offset, buffer, self.size())?;
        self.file.read_exact_at(buffer, offset.0).map_err(|e| block::Error::io("read", e).at(offset))
    }
}

/// Opens a file as a disk with 512-byte sectors.
pub fn disk(path: &Path) -> Arc<dyn BlockSource> {
    disk_with(path, SectorSize::B512)
}

/// Opens a file as a disk.
pub fn disk_with(path: &Path, sector_size: SectorSize) -> Arc<dyn BlockSource> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    Arc::new(FileDisk { file, size, sector_size })
}

/// Runs a shell script with `$1…` as `args`; its output.
pub fn sh(script: &str, args: &[&Path]) -> String {
    let output = Command::new("sh").arg("-ec").arg(script).arg("sh").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The map's extents within a disk of `size` bytes, as pairs; checks the contract of the iteration.
pub fn extents(map: &dyn AllocationMap, size: u64) -> Vec<(u64, u64)> {
    let all: Vec<(u64, u64)> =
        map.extents(Extent::first(ByteCount(size))).map(|e| e.map(|e| (e.start().0, e.end().0)).unwrap()).collect();
    assert!(all.iter().all(|&(start, end)| start < end && end <= size), "{all:x?}");
    assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "extents overlap or touch");
    all
}

/// Whether `at` is in one of `extents`.
pub fn holds(extents: &[(u64, u64)], at: u64) -> bool {
    extents.iter().any(|&(start, end)| (start..end).contains(&at))
}

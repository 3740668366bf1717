//! Any bytes as a qcow2 image: an error or a disk, never a panic, a loop or memory without bound.
#![no_main]

use std::sync::Arc;

use block::{BlockSource, Extent, MemorySource, open_qcow2};
use libfuzzer_sys::fuzz_target;
use machine::{ByteOffset, SectorSize};

fuzz_target!(|bytes: &[u8]| {
    let file: Arc<dyn BlockSource> = Arc::new(MemorySource::new(bytes.to_vec(), SectorSize::B512));
    let Ok(disk) = open_qcow2(file) else { return };
    let size = disk.size().0;
    let mut buffer = vec![0; size.min(1 << 20) as usize];
    let _ = disk.read_at(ByteOffset::ZERO, &mut buffer);
    let _ = disk.read_at(ByteOffset(size - buffer.len() as u64), &mut buffer);
    let mut end = 0;
    for extent in disk.allocated(Extent::first(disk.size())).take(10_000).map_while(Result::ok) {
        assert!(end <= extent.start().0 && !extent.is_empty() && extent.end().0 <= size);
        end = extent.end().0;
    }
});

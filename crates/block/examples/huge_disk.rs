//! Copies a sparse, fragmented disk of 64 TiB into a qcow2 image and prints the peak memory; fails where that is more
//! than a controller may need. Usage: `huge_disk FOLDER`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a measuring program, not the product

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use block::{BlockSource, CopyOptions, CreateOptions, Extent, Format, check_bounds, copy, create_image, open_source};
use machine::{ByteCount, ByteOffset, SectorSize};

/// What a controller may need above idle.
const PEAK_MAX_KIB: u64 = 128 << 10;

fn main() {
    let folder = std::env::args().nth(1).expect("usage: huge_disk FOLDER");
    copy_huge(Path::new(&folder));
}

/// A disk of 64 TiB of which every other grain in use holds data, made up as it is read.
struct Huge;

const HUGE: ByteCount = ByteCount(64 << 40);

impl BlockSource for Huge {
    fn size(&self) -> ByteCount {
        HUGE
    }
    fn logical_sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> block::Result<()> {
        check_bounds(offset, buffer, HUGE)?;
        buffer.fill((offset.0 >> 16) as u8 & 1);
        Ok(())
    }
}

/// A million extents of 4 KiB, one in every 64 MiB, none of them collected.
fn copy_huge(folder: &Path) {
    let image = folder.join("bench-huge.qcow2");
    let step = 64 << 20;
    let used = (0..HUGE.0 / step).map(move |n| {
        // One in 64 reads as data, so that the image fits a real filesystem; the others as zeros.
        let grain = n * step + if n % 64 == 0 { 65536 } else { 0 };
        Ok(Extent::between(ByteOffset(grain), ByteOffset(grain + 4096)))
    });
    let start = Instant::now();
    let idle = peak_kib();
    let mut writer = create_image(&image, Format::Qcow2, HUGE, &CreateOptions::default()).unwrap();
    let totals =
        copy(Arc::new(Huge), Box::new(used), &mut *writer, &CopyOptions::default(), &mut |_| ControlFlow::Continue(()))
            .unwrap();
    let length = writer.finish().unwrap();
    println!(
        "64 TiB: read {}, data {}, file {length}, {:.1} s, peak {} KiB ({idle} KiB before)",
        totals.read,
        totals.data,
        start.elapsed().as_secs_f64(),
        peak_kib()
    );
    let source = open_source(&image).unwrap().source;
    let allocated: u64 = source.allocated(Extent::first(HUGE)).map(|extent| extent.unwrap().length().0).sum();
    println!("map of the image: {} allocated, peak {} KiB", ByteCount(allocated), peak_kib());
    std::fs::remove_file(&image).unwrap();
    let above = peak_kib() - idle;
    assert!(above <= PEAK_MAX_KIB, "peak {above} KiB above idle, the gate is {PEAK_MAX_KIB} KiB");
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

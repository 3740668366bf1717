//! Measures the copy engine against `qemu-img convert`, paired and interleaved: block device (or file) → qcow2.
//!
//! `copy-bench compare SOURCE EXTENTS FOLDER ROUNDS` runs both, each as a process of its own, and prints CPU (user and
//! system, threads and io_uring workers included) and wall time of each round and the ratio of their sums.
//! `copy-bench copy SOURCE EXTENTS IMAGE` is one run of ours; EXTENTS has a line `start end` (bytes) an extent, or is
//! `-` for everything. `copy-bench huge FOLDER` copies a fragmented sparse disk of 64 TiB and prints the peak memory.
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)] // a measuring program, not the product

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use block::{
    AllocationMap, BlockSource, CopyOptions, CreateOptions, Everything, Extent, ExtentIter, Format, check_bounds, copy,
    create_image, open_source,
};
use machine::{ByteCount, ByteOffset, SectorSize};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["copy", source, extents, image] => copy_once(source, extents, image),
        ["compare", source, extents, folder, rounds] => compare(source, extents, folder, rounds.parse().unwrap()),
        ["huge", folder] => copy_huge(folder),
        _ => panic!("usage: copy-bench copy SOURCE EXTENTS IMAGE | compare SOURCE EXTENTS FOLDER ROUNDS | huge FOLDER"),
    }
}

fn copy_once(source: &str, extents: &str, image: &str) {
    let source = open_source(Path::new(source)).unwrap().source;
    let used: ExtentIter<'_> = match extents {
        "-" => Everything.extents(Extent::first(source.size())),
        list => Box::new(BufReader::new(std::fs::File::open(list).unwrap()).lines().map(|line| {
            let line = line.unwrap();
            let (start, end) = line.split_once(' ').unwrap();
            Ok(Extent::between(ByteOffset(start.parse().unwrap()), ByteOffset(end.parse().unwrap())))
        })),
    };
    let mut writer = create_image(Path::new(image), Format::Qcow2, source.size(), &CreateOptions::default()).unwrap();
    let totals = copy(source, used, &mut *writer, &CopyOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let length = writer.finish().unwrap();
    println!(
        "read {}, zero {}, data {}, file {length}, peak {} KiB",
        totals.read,
        totals.zero,
        totals.data,
        peak_kib()
    );
}

/// CPU seconds of all children that ended, user and system.
fn children_cpu() -> (f64, f64) {
    // SAFETY: `getrusage` fills the structure, for which all zeros are a value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime), seconds(usage.ru_stime))
}

fn measure(name: &str, command: &mut Command) -> (f64, f64) {
    let (before, start) = (children_cpu(), Instant::now());
    let output = command.output().unwrap();
    let (after, wall) = (children_cpu(), start.elapsed().as_secs_f64());
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{name:12} cpu {:6.3} s (user {user:.3}, system {system:.3}), wall {wall:6.2} s  {}",
        user + system,
        String::from_utf8_lossy(&output.stdout).trim()
    );
    (user + system, wall)
}

fn compare(source: &str, extents: &str, folder: &str, rounds: u32) {
    let ours = Path::new(folder).join("bench-ours.qcow2");
    let peer = Path::new(folder).join("bench-peer.qcow2");
    let mut sums = [0.0; 4];
    for _ in 0..rounds {
        for path in [&ours, &peer] {
            let _ = std::fs::remove_file(path);
        }
        let (cpu, wall) = measure(
            "vconverter",
            Command::new(std::env::current_exe().unwrap()).args(["copy", source, extents]).arg(&ours),
        );
        sums[0] += cpu;
        sums[1] += wall;
        let (cpu, wall) = measure(
            "qemu-img",
            Command::new("qemu-img")
                .args(["convert", "-T", "none", "-t", "none", "-W", "-m", "16", "-f", "raw", "-O", "qcow2", source])
                .arg(&peer),
        );
        sums[2] += cpu;
        sums[3] += wall;
    }
    println!("cpu ratio {:.3}, wall ratio {:.3}", sums[0] / sums[2], sums[1] / sums[3]);
    let check = Command::new("qemu-img").arg("check").arg(&ours).output().unwrap();
    println!("{}", String::from_utf8_lossy(&check.stdout).trim());
    for path in [&ours, &peer] {
        let _ = std::fs::remove_file(path);
    }
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
fn copy_huge(folder: &str) {
    let image = Path::new(folder).join("bench-huge.qcow2");
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
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

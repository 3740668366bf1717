//! Reads the layout of disks and walks their used maps, then fails if that took more memory than an agent may have:
//! `cargo run --release -p volume --example peak_memory disk.raw`. A 64 TiB disk is made by
//! `truncate -s 64T /dev/shm/disk.raw; mke2fs -qF -t ext4 -i 67108864 -J size=4 /dev/shm/disk.raw` (1 GiB of memory).
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

/// What an agent may have in all.
const PEAK_MAX_KIB: u64 = 64 << 10;

fn main() -> ExitCode {
    let disks: Vec<_> = std::env::args().skip(1).map(|path| support::disk(path.as_ref())).collect();
    let layout = match volume::detect_layout(&disks) {
        Ok(layout) => layout,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for (index, disk) in disks.iter().enumerate() {
        let (mut extents, mut used) = (0u64, 0);
        for extent in layout.used(index).extents(block::Extent::first(disk.size())) {
            match extent {
                Ok(extent) => (extents, used) = (extents + 1, used + extent.length().0),
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("disk {index}: {used} bytes used of {} in {extents} extents", disk.size().0);
    }
    for warning in layout.warnings() {
        println!("{warning}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    println!("peak resident memory {} KiB, at most {PEAK_MAX_KIB}", peak.unwrap_or(u64::MAX));
    if peak.is_some_and(|peak| peak <= PEAK_MAX_KIB) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

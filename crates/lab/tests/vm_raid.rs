//! Firmware RAID: what Linux' own mdadm made is read as the kernel would read it, and a machine that starts from such a set
//! is one disk. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use block::BlockSource;
use lab::{Boot, FirmwareRaid, Kind, Site, SourceMachine, hash_file, make_firmware_raid};
use machine::ByteOffset;
use qemu::{Disk, DiskBus, Image, NicBackend};
use volume::raid::{Candidate, assemble};

const MIB: usize = 1 << 20;

/// Bytes of which no two blocks of 512 are the same.
fn write_content(path: &Path, length: usize) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..length as u64 / 8).flat_map(|n| ((n / 64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n).to_le_bytes()).collect();
    fs::write(path, &bytes).unwrap();
    bytes
}

fn candidates(set: &FirmwareRaid, without: Option<usize>, with_serials: bool) -> Vec<Candidate> {
    let disks = set.disks.iter().zip(&set.serials).enumerate().filter(|(n, _)| Some(*n) != without);
    // Another order than the set's: names of devices tell nothing.
    disks
        .rev()
        .map(|(_, (disk, serial))| Candidate {
            source: block::open_source(disk).unwrap().source,
            serial: with_serials.then(|| serial.clone()),
        })
        .collect()
}

fn read(source: &Arc<dyn BlockSource>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // Odd pieces cross the borders of strips.
    for (n, piece) in bytes.chunks_mut(100_000).enumerate() {
        source.read_at(ByteOffset(n as u64 * 100_000), piece).unwrap();
    }
    bytes
}

#[test]
#[ignore = "full row"]
fn sets_of_intel_that_mdadm_made_are_read_as_the_kernel_reads_them() {
    sets_are_read("imsm");
}

#[test]
#[ignore = "full row"]
fn sets_of_ddf_that_mdadm_made_are_read_as_the_kernel_reads_them() {
    sets_are_read("ddf");
}

fn sets_are_read(format: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content.raw");
    let content = write_content(&path, 64 * MIB);
    let wanted = [(format, "1", 2), (format, "0", 2), (format, "10", 4), (format, "5", 3)];
    for set in make_firmware_raid(folder.path(), &wanted, &path).unwrap() {
        let redundant = set.level != "0";
        for without in [None, Some(0), Some(1)] {
            let assembly = assemble(&candidates(&set, without, true));
            assert!(assembly.plain.is_empty(), "a member is offered as a disk");
            if without.is_some() && !redundant {
                println!("{} {} without disk {without:?}: {}", set.format, set.level, assembly.refused[0].reason);
                assert!(assembly.arrays.is_empty() && assembly.refused[0].reason.contains("missing"));
                continue;
            }
            assert_eq!(assembly.refused, []);
            let array = &assembly.arrays[0];
            println!(
                "{} {}: {:?} of {} disks, {} missing, {} bytes (the kernel: {})",
                set.format,
                array.level,
                array.name,
                array.members.len(),
                array.missing,
                array.source.size().0,
                set.size
            );
            assert_eq!(array.source.size().0, set.size);
            assert!(read(&array.source, content.len()) == content, "{} {} without {without:?}", set.format, set.level);
        }
        // DDF knows its disks by numbers of its own.
        let nameless = assemble(&candidates(&set, None, false));
        match set.level.as_str() {
            _ if format == "ddf" => assert!(read(&nameless.arrays[0].source, content.len()) == content),
            "1" => assert!(read(&nameless.arrays[0].source, content.len()) == content),
            _ => assert!(nameless.refused[0].reason.contains("serial numbers"), "{}", nameless.refused[0].reason),
        }
    }
}

#[test]
#[ignore = "full row"]
fn a_machine_on_a_mirror_of_its_firmware_is_one_disk_and_boots_converted() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(folder.path()).unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let making = tempfile::tempdir().unwrap();
    let set = make_firmware_raid(making.path(), &[("imsm", "1", 2)], &machine.disk).unwrap().remove(0);
    let hashes = || set.disks.iter().map(|disk| hash_file(disk).unwrap()).collect::<Vec<_>>();
    let before = hashes();
    let iso = site.boot_image().unwrap();
    let mut hardware = machine.hardware(Boot::Iso(&iso), NicBackend::Unplugged);
    let disk = |(path, serial): (_, &String)| Disk {
        serial: Some(serial.clone()),
        ..Disk::new(Image::new(path, "raw"), DiskBus::Ahci)
    };
    hardware.disks = set.disks.iter().zip(&set.serials).map(disk).collect();
    let (vm, _cable) = site.switch_on_hardware(hardware).unwrap();
    let (_, id) = site.pair(&vm).unwrap_or_else(|error| panic!("{error}\n{}", vm.serial(0).text()));
    let shown = site.json(&["machines", "show", &id]).unwrap();
    let disks = &shown["report"]["disks"];
    println!("disks: {disks}\nguest: {}", shown["report"]["guest"]);
    assert_eq!((disks.as_array().unwrap().len(), disks[0]["virtual_size"].as_u64()), (1, Some(set.size)), "{disks}");
    assert!(disks[0]["identity"]["model"].as_str().unwrap().starts_with("RAID 1 "), "{disks}");
    let output = site.output().display().to_string();
    let task = site.json(&["convert", &id, "--name", "phys-a", "--output", &output, "--detach"]).unwrap();
    let task = site.wait_for_task(task["id"].as_str().unwrap(), Duration::from_secs(1800)).unwrap();
    vm.kill();
    assert_eq!(task["state"], "done", "{task}");
    println!("boot proof: {}", task["outcome"]["proof"]);
    assert_eq!(task["outcome"]["proof"]["verdict"], "passed");
    assert!(hashes() == before, "a member was changed");
}

//! What Windows starts from beside its store: drive letters of real hives, and boot sectors that mkntfs and mkfs.fat made.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use guest::windows::boot_sector::{BootSector, Filesystem, Geometry, disk_signature, plan_geometry, plan_signature};
use guest::windows::drive_letters::{DriveLetters, Target};
use guest::windows::hive::{Filetime, KeyPath};
use guest::windows::{Partition, PartitionMove, reg_text};
use guest::{Direction, RegistryChange, registration};
use machine::ByteOffset;

const NOW: Filetime = Filetime(0x01db_0000_0000_0000);

fn mbr(signature: u32, offset: u64) -> Partition {
    Partition::Mbr { signature, offset: ByteOffset(offset) }
}

/// Letters and what they stand for, of real hives.
#[test]
fn drive_letters_of_real_hives_are_read() {
    let Some(data) = support::test_data() else { return };
    let gpt = Partition::Gpt {
        disk: "00000000-0000-0000-0000-000000000000".parse().unwrap(),
        partition: "1e178d94-4f79-41e9-865d-2e5b4328cd23".parse().unwrap(),
    };
    // As hivexregedit exports MountedDevices.
    for (name, entries, c) in [
        ("hives/SYSTEM-win10-19041-x64-clean", 5, gpt),
        ("hives/SYSTEM-win7sp1-x86-clean", 11, mbr(0x5cbe_a03e, 0x0010_0000)),
        ("hives/SYSTEM-xpsp3-x86-clean", 6, mbr(0x4cbc_4cbc, 0x7e00)),
    ] {
        let letters = DriveLetters::read(&support::hive(&data, name)).unwrap();
        println!("{name}\n{letters}");
        assert_eq!((letters.entries.len(), letters.letter(c)), (entries, Some('C')), "{name}");
        assert!(letters.entries.iter().all(|entry| entry.target != Target::Unknown), "{name}");
        let floppy = letters.entries.iter().find(|entry| entry.letter() == Some('A')).unwrap();
        assert!(
            matches!(&floppy.target, Target::Device { path } if path.starts_with("\\??\\FDC#GENERIC_FLOPPY_DRIVE#"))
        );
    }
}

#[test]
fn letters_and_volume_names_follow_their_partition() {
    let Some(data) = support::test_data() else { return };
    let mut hive = support::hive(&data, "hives/SYSTEM-win7sp1-x86-clean");
    let before = DriveLetters::read(&hive).unwrap();
    let (from, to) = (mbr(0x5cbe_a03e, 0x0010_0000), mbr(0x1122_3344, 0x0020_0000));
    // Another partition of the same disk has no entry.
    let moves = [PartitionMove { from: mbr(0x5cbe_a03e, 0x0010_0001), to: from }, PartitionMove { from, to }];
    let edits = before.plan_moves(&moves);
    let texts: Vec<String> = edits.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "[MountedDevices] drive C: is (signature 11223344, offset 2097152) by now",
            "[MountedDevices] volume is (signature 11223344, offset 2097152) by now",
        ]
    );
    let value = |name: &str| RegistryChange::Value {
        key: "MountedDevices".into(),
        name: name.into(),
        before: Some("hex:3e,a0,be,5c,00,00,10,00,00,00,00,00".into()),
        after: Some("hex:44,33,22,11,00,00,20,00,00,00,00,00".into()),
    };
    let volume = "\\??\\Volume{656b1715-ecf6-11df-92e6-806e6f6e6963}";
    assert_eq!(
        (&edits[0].changes[..], &edits[1].changes[..]),
        (&[value("\\DosDevices\\C:")][..], &[value(volume)][..])
    );

    let changes: Vec<RegistryChange> = edits.into_iter().flat_map(|edit| edit.changes).collect();
    let text = registration(&changes, &KeyPath::from("HKLM\\SYSTEM"), Direction::Forth);
    let mut edit = hive.edit(NOW).unwrap();
    let sections = reg_text::parse(text.as_bytes()).unwrap();
    reg_text::merge(&mut edit, &sections, &KeyPath::from("HKLM\\SYSTEM")).unwrap();
    edit.commit().unwrap();
    let after = DriveLetters::read(&hive).unwrap();
    assert_eq!((after.letter(to), after.letter(from)), (Some('C'), None));
    assert!(after.plan_moves(&moves).is_empty());
    // To a GPT disk: its GUID alone counts.
    let gpt = Partition::Gpt {
        disk: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
        partition: "1e178d94-4f79-41e9-865d-2e5b4328cd23".parse().unwrap(),
    };
    let edits = after.plan_moves(&[PartitionMove { from: to, to: gpt }]);
    let RegistryChange::Value { after: Some(data), .. } = &edits[0].changes[0] else { panic!("{}", edits[0]) };
    let guid = [0x94, 0x8d, 0x17, 0x1e, 0x79, 0x4f, 0xe9, 0x41, 0x86, 0x5d, 0x2e, 0x5b, 0x43, 0x28, 0xcd, 0x23];
    assert_eq!(reg_text::parse_data(data).unwrap().bytes, [&b"DMIO:ID:"[..], &guid].concat());
}

/// A partition at sector `start` that `program` formats for 16 heads and 63 sectors.
fn formatted(program: &str, arguments: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let output =
        Command::new(program).args(arguments).arg(file.path()).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file.path()).unwrap()
}

#[test]
fn boot_sectors_that_other_programs_wrote_are_read_and_patched() {
    let (sector, heads, hidden) = (["-p", "63", "-H", "16", "-S", "63"], ["-g", "16/63", "-h", "63"], 63);
    let ntfs = formatted("mkntfs", &[&["-F", "-q", "-f", "-s", "512"][..], &sector[..]].concat());
    let fat16 = formatted("mkfs.fat", &[&["-F", "16"][..], &heads[..]].concat());
    let fat32 = formatted("mkfs.fat", &[&["-F", "32", "-s", "1"][..], &heads[..]].concat());
    for (name, volume, filesystem) in
        [("NTFS", ntfs, Filesystem::Ntfs), ("FAT16", fat16, Filesystem::Fat), ("FAT32", fat32, Filesystem::Fat)]
    {
        let found = BootSector::parse(&volume[..512]).unwrap();
        println!("{name}: {found}");
        let geometry = Geometry { sectors_per_track: 63, heads: 16, hidden };
        assert_eq!(found, BootSector { filesystem, sector_size: 512, geometry }, "{name}");

        let wanted = Geometry::of_bios(20 << 21, 2048).unwrap();
        assert_eq!((wanted.heads, wanted.hidden), (255, 2048));
        let offset = ByteOffset(1 << 20);
        let patch = plan_geometry(1, offset, &volume, wanted).unwrap().unwrap();
        assert_eq!((patch.disk, patch.offset), (1, ByteOffset((1 << 20) + 0x18)));
        assert_eq!(
            (&patch.old[..], &patch.new[..]),
            (&[63, 0, 16, 0, 63, 0, 0, 0][..], &[63, 0, 255, 0, 0, 8, 0, 0][..])
        );
        let mut patched = volume.clone();
        patched[0x18..0x20].copy_from_slice(&patch.new);
        assert_eq!(BootSector::parse(&patched).unwrap().geometry, wanted, "{name}");
        assert_eq!(plan_geometry(1, offset, &patched, wanted).unwrap(), None, "{name}: a second time changes nothing");
    }
}

#[test]
fn a_disk_signature_that_sfdisk_wrote_is_read_and_patched() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let script =
        format!("printf 'label: dos\\nlabel-id: 0x5cbea03e\\nstart=2048\\n' | sfdisk -q {}", file.path().display());
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .status()
            .unwrap()
            .success()
    );
    let mut disk = std::fs::read(file.path()).unwrap();
    assert_eq!(disk_signature(&disk), Some(0x5cbe_a03e));
    let patch = plan_signature(0, &disk[..512], 0x1122_3344).unwrap().unwrap();
    assert_eq!(
        patch.to_string(),
        "disk 0 at 440: 3ea0be5c becomes 44332211: disk signature: 5cbea03e becomes 11223344"
    );
    disk[440..444].copy_from_slice(&patch.new);
    std::fs::write(file.path(), &disk).unwrap();
    let output =
        Command::new("sfdisk").arg("--disk-id").arg(file.path()).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
    assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout).trim(), "0x11223344");
    assert_eq!(plan_signature(0, &disk, 0x1122_3344).unwrap(), None);
}

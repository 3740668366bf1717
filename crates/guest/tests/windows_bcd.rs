//! Boot configuration data: a real store against a golden file written from hivexregedit's export of it, stores of which
//! the layout is cited in the module, and what is changed in them.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use guest::windows::bcd::{Bcd, DeviceElement, DeviceKind, ElementType, Value};
use guest::windows::boot_ini::BootIni;
use guest::windows::boot_sector::{BootSector, Geometry, plan_geometry, plan_signature};
use guest::windows::drive_letters::DriveLetters;
use guest::windows::hive::{Data, Filetime, Hive, KeyPath, Unfinished, file};
use guest::windows::{Guid, Partition, PartitionMove, RegistryEdit, boot_manager, reg_text};
use guest::{Change, Direction, Fixup, MemoryTree, Plan, State, registration};
use machine::{
    ByteCount, ByteOffset, Disk, DiskIdentity, DiskLayout, Family, Firmware, FirmwareKind, Machine, PartitionTable,
    SectorSize, Volume,
};
use proptest::prelude::*;

#[allow(unreachable_pub, reason = "fuzz targets share it")]
#[path = "../../../fuzz/small_hive.rs"]
mod small_hive;

const REAL: &str = "hives/BCD-win10-uefi";
const NOW: Filetime = Filetime(0x01db_0000_0000_0000);

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A store made of a registration file.
fn store(text: &str) -> Hive {
    let mut hive = Hive::load(small_hive::small_hive(), &[], Unfinished::ReadAsItIs).unwrap();
    let sections = reg_text::parse(format!("Windows Registry Editor Version 5.00\r\n\r\n{text}").as_bytes()).unwrap();
    let mut edit = hive.edit(NOW).unwrap();
    reg_text::merge(&mut edit, &sections, &KeyPath::from("B")).unwrap();
    edit.commit().unwrap();
    hive
}

/// Makes the changes as a plan does; the hive is read again.
fn apply(hive: &mut Hive, edits: &[RegistryEdit]) -> State {
    let changes: Vec<_> = edits.iter().flat_map(|edit| edit.changes.clone()).collect();
    let change = Change::Registry { path: "/BCD".into(), changes, grows: 0 };
    let fixup = Fixup {
        id: "x".into(),
        title: "t".into(),
        reason: "r".into(),
        already_so: false,
        no_room: false,
        changes: vec![change],
    };
    let plan = Plan { fixups: vec![fixup], ..Plan::without_fixups(FirmwareKind::Uefi, Family::Windows) };
    let mut tree = MemoryTree::new().with("/BCD", hive.to_file(NOW));
    let outcome = guest::apply(&plan, &[], &mut tree).remove(0);
    println!("{:?} {}", outcome.state, outcome.detail);
    *hive = file::open(&tree, "/BCD", Unfinished::Refuse).unwrap();
    outcome.state
}

const DISK: &str = "0b2394a9-095e-487d-8d48-719ecd4d78ca";
const ESP: &str = "36be3955-63bf-4068-a6ab-00195cca3a22";
const SYSTEM: &str = "8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b";
const RECOVERY: &str = "6cdfcd69-de75-4490-8f99-5a84bf264917";

fn gpt(disk: &str, partition: &str) -> Partition {
    Partition::Gpt { disk: disk.parse().unwrap(), partition: partition.parse().unwrap() }
}

fn disk(table: PartitionTable, id: &str, volumes: &[(u64, &str)]) -> Disk {
    let volume = |(offset, uuid): &(u64, &str)| Volume {
        offset: ByteOffset(*offset),
        partition_uuid: Some((*uuid).to_owned()),
        ..Volume::default()
    };
    Disk {
        path: "/dev/sda".into(),
        format: "raw".into(),
        virtual_size: ByteCount::gib(64),
        logical_sector_size: SectorSize::B512,
        identity: DiskIdentity::default(),
        layout: DiskLayout {
            partition_table: table,
            partition_table_id: Some(id.to_owned()),
            volumes: volumes.iter().map(volume).collect(),
        },
    }
}

#[test]
fn a_real_store_is_shown_as_its_golden_file_says() {
    let Some(data) = support::test_data() else { return };
    let shown = Bcd::read(&support::hive(&data, REAL)).unwrap().to_string();
    println!("{} objects, {} lines", shown.matches("identifier").count(), shown.lines().count());
    for (at, (shown, golden)) in shown.lines().zip(include_str!("golden/bcd-win10-uefi.txt").lines()).enumerate() {
        assert_eq!(shown, golden, "line {}", at + 1);
    }
    assert_eq!(shown, include_str!("golden/bcd-win10-uefi.txt"));
}

#[test]
fn a_real_store_has_the_objects_of_its_manifest_and_every_element_is_written_as_it_was_read() {
    let Some(data) = support::test_data() else { return };
    let store = Bcd::read(&support::hive(&data, REAL)).unwrap();
    let expected = &support::facts(&data)[REAL]["BCD_objects"];
    let guids: Vec<String> = store.objects.iter().map(|object| object.guid.to_string()).collect();
    assert_eq!(&serde_json::to_value(guids).unwrap(), expected);
    assert!(store.notes.is_empty());
    let (mut devices, mut others) = (0, 0);
    for element in store.objects.iter().flat_map(|object| &object.elements) {
        assert!(!matches!(element.value, Value::Binary(_)), "{}", element.key);
        let written = element.value.to_data();
        assert_eq!(written.kind, element.data.kind, "{}", element.key);
        if let Value::String(_) = element.value {
            // Some texts of Windows end in two zeros.
            assert!(element.data.bytes.starts_with(&written.bytes), "{}", element.key);
            others += 1;
            continue;
        }
        assert_eq!(written, element.data, "{}", element.key);
        if matches!(element.value, Value::Device(_)) { devices += 1 } else { others += 1 }
    }
    println!("{devices} devices, {others} other elements");
    // As many as hivexregedit exports.
    assert_eq!((devices, devices + others), (12, 78));
}

#[test]
fn the_default_object_is_that_of_the_boot_manager() {
    let Some(data) = support::test_data() else { return };
    let store = Bcd::read(&support::hive(&data, REAL)).unwrap();
    let object = store.default_object().unwrap();
    assert_eq!(object.description(), Some("Windows 10"));
    let json = serde_json::to_value(&store).unwrap();
    let manager = json["objects"].as_array().unwrap().iter().find(|o| o["name"] == "{bootmgr}").unwrap();
    let device = &manager["elements"][0];
    assert_eq!((device["name"].as_str(), device["kind"].as_str()), (Some("device"), Some("11000001")));
    assert_eq!(device["value"]["partition"]["partition"], format!("{{{ESP}}}"));
}

#[test]
fn after_a_disk_got_other_guids_every_device_names_it() {
    let Some(data) = support::test_data() else { return };
    let mut hive = support::hive(&data, REAL);
    let store = Bcd::read(&hive).unwrap();
    let new = "11111111-2222-3333-4444-555555555555";
    let here = [disk(PartitionTable::Gpt, new, &[(1, ESP), (2, SYSTEM), (3, RECOVERY)])];
    let moves = [ESP, SYSTEM, RECOVERY].map(|p| PartitionMove { from: gpt(DISK, p), to: gpt(new, p) });

    let before = store.fits(&here);
    let fatal: Vec<&str> = before.iter().filter(|m| m.is_fatal).map(|m| m.text.as_str()).collect();
    let [device, os, manager] = fatal[..] else { panic!("{fatal:#?}") };
    assert!(
        device.starts_with("device of {733b62e5-f608-11eb-825c-c112f60133ab} (Windows 10) is (disk {0b2394a9"),
        "{device}"
    );
    assert!(os.starts_with("osdevice of") && manager.starts_with("device of {bootmgr} (Windows Boot Manager)"));
    assert!(
        os.ends_with(&format!("/dev/sda has the partition, under another disk GUID ({})", gpt(new, SYSTEM))),
        "{os}"
    );

    let edits = store.plan_rebind(&moves);
    assert_eq!(edits.len(), 9, "{edits:#?}");
    assert_eq!(apply(&mut hive, &edits), State::Done);
    let after = Bcd::read(&hive).unwrap();
    let left = after.fits(&here);
    // The boot variables of another disk's Linux are no business of Windows.
    assert_eq!(left.len(), 3);
    assert!(left.iter().all(|m| !m.is_fatal && m.text.ends_with("no disk has this GUID")), "{left:#?}");
    assert!(after.plan_rebind(&moves).is_empty());
    assert_eq!(apply(&mut hive, &edits), State::AlreadySo);

    // hivex reads what was written; nothing but the disk's GUID changed.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), hive.to_file(NOW)).unwrap();
    let output = Command::new("hivexregedit").arg("--export").arg(file.path()).arg("\\Objects").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let stored = |guid: &str| {
        let guid: Guid = guid.parse().unwrap();
        guid.0.map(|byte| format!("{byte:02x}")).join(",")
    };
    assert_eq!((text.matches(&stored(DISK)).count(), text.matches(&stored(new)).count()), (0, 9));
    assert!(hive.check().is_whole());

    // And back again.
    let back = moves.map(|moved| PartitionMove { from: moved.to, to: moved.from });
    apply(&mut hive, &after.plan_rebind(&back));
    assert_eq!(Bcd::read(&hive).unwrap(), store);
}

#[test]
fn an_edit_is_refused_where_the_hive_is_not_what_the_plan_was_made_for() {
    let mut hive = store(MBR_STORE);
    let read = Bcd::read(&hive).unwrap();
    let to = Partition::Mbr { signature: 0x1122_3344, offset: ByteOffset(1 << 20) };
    let edits = read.plan_rebind(&[PartitionMove { from: SYSTEM_MBR, to }]);
    assert_eq!(edits.len(), 2, "{edits:#?}");
    let mut edit = hive.edit(NOW).unwrap();
    edit.set_value(edits[0].changes[0].key(), "Element", &Data::binary([0])).unwrap();
    edit.commit().unwrap();
    assert_eq!(apply(&mut hive, &edits), State::Failed);
    assert_eq!(Bcd::read(&hive).unwrap().fits(&[]).len(), 1, "nothing was changed");
    // A plan that was stored is the same plan.
    let stored = serde_json::to_string(&edits).unwrap();
    assert_eq!(serde_json::from_str::<Vec<RegistryEdit>>(&stored).unwrap(), edits);
}

const SYSTEM_MBR: Partition = Partition::Mbr { signature: 0x5cbe_a03e, offset: ByteOffset(105_906_176) };

/// As Windows 7 makes it on a BIOS machine, to what matters here.
const MBR_STORE: &str = "\
[B\\Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Description]\r\n\"Type\"=dword:10100002\r\n\
[B\\Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\11000001]\r\n\"Element\"=hex:00,00,00,00,00,00,00,00,00,\
00,00,00,00,00,00,00,05,00,00,00,00,00,00,00,48,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,\
00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00\r\n\
[B\\Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\23000003]\r\n\
\"Element\"=\"{fde483f1-1482-11e2-90a1-00505698002c}\"\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Description]\r\n\"Type\"=dword:10200003\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\11000001]\r\n\"Element\"=hex:00,00,00,00,00,00,00,00,00,\
00,00,00,00,00,00,00,06,00,00,00,00,00,00,00,48,00,00,00,00,00,00,00,00,00,50,06,00,00,00,00,00,00,00,00,00,00,00,00,00,\
00,00,00,01,00,00,00,3e,a0,be,5c,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\21000001]\r\n\"Element\"=hex:00,00,00,00,00,00,00,00,00,\
00,00,00,00,00,00,00,06,00,00,00,00,00,00,00,48,00,00,00,00,00,00,00,00,00,50,06,00,00,00,00,00,00,00,00,00,00,00,00,00,\
00,00,00,01,00,00,00,3e,a0,be,5c,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\16000046]\r\n\"Element\"=hex:01\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\16000009]\r\n\"Element\"=hex:00\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\250000e0]\r\n\"Element\"=hex:01,00,00,00,00,00,00,00\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\260000b0]\r\n\"Element\"=hex:01\r\n\
[B\\Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\25000099]\r\n\"Element\"=hex:01\r\n\
[B\\Objects\\junk\\Elements]\r\n";

#[test]
fn a_store_of_a_bios_machine_names_signature_and_offset() {
    let hive = store(MBR_STORE);
    let read = Bcd::read(&hive).unwrap();
    let shown = read.to_string();
    println!("{shown}");
    assert!(shown.contains("\ndevice                  boot\n"));
    assert!(shown.contains("\nosdevice                partition=(signature 5cbea03e, offset 105906176)\n"));
    // Bytes that are no integer are kept and shown.
    assert!(shown.contains("\ncustom:25000099         01\n"));
    assert!(shown.ends_with("\nnote: Objects\\\\junk: its name is no GUID\n"));

    let fits = |id: &str, offset: u64| {
        let here = [disk(PartitionTable::Mbr, id, &[(1 << 20, "x-01"), (offset, "x-02")])];
        read.fits(&here).into_iter().map(|m| m.text).collect::<Vec<_>>()
    };
    assert_eq!(fits("5cbea03e", 105_906_176), Vec::<String>::new());
    let moved = fits("5cbea03e", 106_954_752);
    assert_eq!(moved.len(), 2);
    assert!(moved[1].ends_with("(signature 5cbea03e, offset 105906176): /dev/sda has no partition there"), "{moved:?}");
    let other = fits("00000001", 105_906_176);
    let expected = "no disk has this signature; /dev/sda has a partition there (signature 00000001, offset 105906176)";
    assert!(other[0].ends_with(expected), "{other:?}");
    assert!(fits("00000001", 4096)[0].ends_with("no disk has this signature"));
}

#[test]
fn the_store_of_a_boot_volume_is_fixed_up_and_what_does_not_fit_is_told() {
    let tree_of = |hive: &mut Hive| MemoryTree::new().with("/boot/Boot/BCD", hive.to_file(NOW));
    let mut tree = tree_of(&mut store(MBR_STORE));
    let machine = |id: &str| Machine {
        firmware: Firmware { kind: FirmwareKind::Bios, ..Firmware::default() },
        disks: vec![disk(PartitionTable::Mbr, id, &[(105_906_176, "x-01")])],
        ..Machine::default()
    };
    let to = Partition::Mbr { signature: 0x1122_3344, offset: ByteOffset(1 << 20) };
    let moves = [PartitionMove { from: SYSTEM_MBR, to }];
    let mut warnings = Vec::new();
    let fixups = boot_manager::plan(&tree, "/boot", &machine("5cbea03e"), &moves, &mut warnings).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let plan = Plan { fixups, ..Plan::without_fixups(FirmwareKind::Bios, Family::Windows) };
    println!("{plan}");
    assert!(
        plan.to_string().contains("osdevice of {fde483f1-1482-11e2-90a1-00505698002c}: partition=(signature 5cbea03e")
    );
    assert_eq!((plan.fixups.len(), plan.fixups[0].id.as_str()), (1, "boot-configuration"));
    assert_eq!(guest::apply(&plan, &[], &mut tree)[0].state, State::Done);
    let again = boot_manager::plan(&tree, "/boot", &machine("11223344"), &moves, &mut warnings).unwrap();
    assert!(again[0].already_so);
    // The machine's disks are those of its source: what is not there was not there before.
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(
        warnings[0]
            .starts_with("Windows' boot configuration: device of {fde483f1-1482-11e2-90a1-00505698002c} is (sig")
    );
}

#[test]
fn a_disabled_screen_comes_back_and_nothing_else_changes() {
    let mut hive = store(MBR_STORE);
    let before = Bcd::read(&hive).unwrap();
    let edits = before.plan_graphics_mode();
    let [edit] = &edits[..] else { panic!("{edits:#?}") };
    let expected = "[Objects\\{fde483f1-1482-11e2-90a1-00505698002c}\\Elements\\16000046] graphicsmodedisabled of \
                    {fde483f1-1482-11e2-90a1-00505698002c}: the virtual machine has a screen";
    assert_eq!(edit.to_string(), expected);
    // What takes it back is a registration file.
    let back = registration(&edit.changes, &KeyPath::from("B"), Direction::Back);
    assert_eq!((apply(&mut hive, &edits), apply(&mut hive, &edits)), (State::Done, State::AlreadySo));
    let after = Bcd::read(&hive).unwrap();
    let mut edit = hive.edit(NOW).unwrap();
    reg_text::merge(&mut edit, &reg_text::parse(back.as_bytes()).unwrap(), &KeyPath::from("B")).unwrap();
    edit.commit().unwrap();
    assert_eq!(Bcd::read(&hive).unwrap(), before);
    let mut expected = before;
    for object in &mut expected.objects {
        object.elements.retain(|element| element.kind != ElementType::GRAPHICS_MODE_DISABLED);
    }
    assert_eq!(after, expected);
    // Neither what an operator chose for recovery, nor the console on a serial port.
    for (kind, name) in [(0x1600_0009, "recoveryenabled"), (0x2500_00e0, "bootstatuspolicy"), (0x2600_00b0, "ems")] {
        let object = after.default_object().unwrap();
        assert!(object.value(ElementType(kind)).is_some() && object.name_of(ElementType(kind)) == name);
    }
}

/// The device that a search, a RAM disk or a virtual disk has within: a partition of an MBR disk.
const WITHIN: &str = "06000000 00000000 48000000 00000000 00001000 00000000 0000000000000000 00000000 01000000 3ea0be5c \
                      000000000000000000000000 00000000000000000000000000000000";
const NO_OPTIONS: &str = "00000000000000000000000000000000";

/// Each kind of device as it is stored, and as it is shown.
fn devices() -> Vec<(String, &'static str)> {
    let zeros = |count: usize| "00".repeat(count);
    // "\a.vhd" and a zero.
    let path = "5c0061002e007600680064000000";
    let file = format!("01000000 62000000 05000000 {WITHIN} {path}");
    // A file is 12 + 72 + 14 bytes; it is a local device of type 5, in a descriptor.
    let file_device = format!("00000000 00000000 76000000 00000000 05000000 {file}");
    let disk = format!("00000000 00000000 9e000000 00000000 06000000 {} {file_device}", zeros(20));
    let within = "signature 5cbea03e, offset 1048576";
    let gpt = format!(
        "06000000 00000000 48000000 00000000 5539be36bf636840a6ab00195cca3a22 00000000 00000000 \
         a994230b5e097d488d48719ecd4d78ca {}",
        zeros(16)
    );
    let mbr = format!("partition=({within})");
    let leak = |text: String| -> &'static str { text.leak() };
    vec![
        (format!("{NO_OPTIONS} 05000000 00000000 48000000 00000000 {}", zeros(56)), "boot"),
        (format!("{NO_OPTIONS} {WITHIN}"), leak(mbr)),
        (
            format!("{NO_OPTIONS} {gpt}"),
            "partition=(disk {0b2394a9-095e-487d-8d48-719ecd4d78ca}, partition {36be3955-63bf-4068-a6ab-00195cca3a22})",
        ),
        (format!("{NO_OPTIONS} {file_device}"), leak(format!("file=[{within}]\\a.vhd"))),
        (
            // ramdisk=[boot]\Boot\boot.wim,{ramdiskoptions} as bcdedit writes it for a network boot.
            format!(
                "e03455ae24a96c46b836758539a3ee3a 00000000 01000000 9a000000 00000000 03000000 {} 01000000 72000000 \
                 05000000 05000000 00000000 48000000 00000000 {} 5c0042006f006f0074005c0062006f006f0074002e00770069006d000000",
                zeros(20),
                zeros(56)
            ),
            "ramdisk=[boot]\\Boot\\boot.wim,{ae5534e0-a924-466c-b836-758539a3ee3a}",
        ),
        (format!("{NO_OPTIONS} {disk}"), leak(format!("vhd=[{within}]\\a.vhd"))),
        (
            // A virtual disk whose partition is searched by the application's path.
            format!("{NO_OPTIONS} 08000000 00000000 bc000000 00000000 00000000 02000012 1e000000 0000 {disk}"),
            leak(format!("vhd=[{within}]\\a.vhd,locate=custom:12000002")),
        ),
        (
            // As sysprep leaves it.
            format!("{NO_OPTIONS} 08000000 00000000 1e000000 00000000 00000000 02000022 00000000 0000"),
            "locate=custom:22000002",
        ),
        (
            // A qualified partition of a virtual disk.
            format!(
                "{NO_OPTIONS} 06000000 00000000 ae000000 00000000 00001000 00000000 0000000000000000 06000000 {} {file_device}",
                zeros(20)
            ),
            leak(format!("partition of vhd=[{within}]\\a.vhd")),
        ),
        (format!("{NO_OPTIONS} 04000000 00000000 14000000 00000000 01020304"), "unknown (type 4, 4 bytes)"),
    ]
}

#[test]
fn every_kind_of_device_is_written_as_it_was_read() {
    for (stored, shown) in devices() {
        let stored = bytes(&stored);
        let element = DeviceElement::parse(&stored).unwrap_or_else(|| panic!("{shown}"));
        println!("{element}");
        assert_eq!(element.to_string(), shown);
        assert_eq!(element.to_bytes(), stored, "{shown}");
        assert_eq!(matches!(element.device.kind, DeviceKind::Unknown { .. }), shown.starts_with("unknown"), "{shown}");
        // Every partition within gets its new name, and nothing else changes.
        let from = Partition::Mbr { signature: 0x5cbe_a03e, offset: ByteOffset(1 << 20) };
        let to = Partition::Mbr { signature: 0x1122_3344, offset: ByteOffset(1 << 30) };
        let rebound = element.rebound(&[PartitionMove { from, to }]);
        assert_eq!(rebound.is_some(), shown.contains("5cbea03e"), "{shown}");
        if let Some(rebound) = rebound {
            let expected = shown.replace("5cbea03e, offset 1048576", "11223344, offset 1073741824");
            let (written, again) = (rebound.to_bytes(), DeviceElement::parse(&rebound.to_bytes()).unwrap());
            assert_eq!((again.to_string(), written.len()), (expected, stored.len()));
            assert_eq!(stored.iter().zip(&written).filter(|(a, b)| a != b).count(), 4 + 2, "{shown}");
        }
    }
}

#[test]
fn what_is_no_device_is_kept_as_bytes() {
    for stored in ["", "00", NO_OPTIONS, &format!("{NO_OPTIONS} 06000000 00000000 ff000000 00000000")] {
        let data = Data::binary(bytes(stored));
        assert_eq!(Value::of(ElementType::OS_DEVICE, &data), Value::Binary(data.bytes.clone()), "{stored}");
    }
    // Devices within devices have an end.
    let mut device = bytes("05000000 00000000 10000000 00000000");
    for _ in 0..64 {
        let mut outer = bytes("00000000 00000000");
        outer.extend(u32::try_from(device.len() + 40).unwrap().to_le_bytes());
        outer.extend(bytes(&format!("00000000 06000000 {}", "00".repeat(20))));
        outer.extend(&device);
        device = outer;
    }
    let stored = [bytes(NO_OPTIONS), device].concat();
    let element = DeviceElement::parse(&stored).unwrap();
    assert_eq!(element.to_bytes(), stored);
    println!("{element}");
}

#[test]
fn a_hive_that_is_no_store_is_refused() {
    let hive = Hive::load(small_hive::small_hive(), &[], Unfinished::ReadAsItIs).unwrap();
    let error = Bcd::read(&hive).unwrap_err();
    assert_eq!(error.to_string(), "expected a BCD store, found a hive without the key Objects");
}

/// What the fuzz targets `bcd`, `bcd_element`, `boot_ini` and `boot_sector` do with any bytes.
fn read_and_planned(bytes: &[u8]) -> bool {
    let to = Partition::Mbr { signature: 1, offset: ByteOffset(2) };
    if let Some(element) = DeviceElement::parse(bytes) {
        let moves: Vec<PartitionMove> =
            element.partitions().into_iter().map(|from| PartitionMove { from, to }).collect();
        if let Some(rebound) = element.rebound(&moves) {
            assert_eq!(DeviceElement::parse(&rebound.to_bytes()), Some(rebound));
        }
    }
    let _ = BootIni::parse(bytes).map(|ini| ini.to_string());
    let _ = BootSector::parse(bytes).map(|sector| sector.to_string());
    let wanted = Geometry { sectors_per_track: 63, heads: 255, hidden: 2048 };
    let _ = (plan_geometry(0, ByteOffset(0), bytes, wanted), plan_signature(0, bytes, 1));
    let Ok(hive) = Hive::load(bytes.to_vec(), &[], Unfinished::ReadAsItIs) else { return false };
    let _ = DriveLetters::read(&hive).map(|letters| letters.to_string());
    let Ok(store) = Bcd::read(&hive) else { return false };
    let _ = (store.to_string(), store.plan_graphics_mode(), store.fits(&[]), serde_json::to_string(&store).unwrap());
    true
}

#[test]
fn stores_with_changed_bytes_are_read_or_refused() {
    let mut file = store(MBR_STORE).to_file(NOW);
    assert!(read_and_planned(&file));
    let (mut read, mut refused) = (0, 0);
    // Each byte of the hive once, by turns all its bits, one of them, or nothing left of it.
    for at in 0..file.len() {
        let before = file[at];
        file[at] = [!before, before ^ 1 << (at % 8), 0][at % 3];
        if read_and_planned(&file) {
            read += 1
        } else {
            refused += 1
        }
        file[at] = before;
    }
    println!("{read} read, {refused} refused");
    assert!(read > 0 && refused > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_as_boot_ini_and_any_sector_are_read_or_refused(
        lines in prop::collection::vec("(\\[[a-z ]{0,20}\\]|[a-z]{0,9}\\([0-9a-f]{0,12}\\)[a-z()0-9\\\\]{0,40}=.{0,20}|.{0,30})", 0..12),
        mut sector in prop::collection::vec(any::<u8>(), 0..600),
        is_ntfs in any::<bool>(),
    ) {
        read_and_planned(format!("[operating systems]\n{}", lines.join("\r\n")).as_bytes());
        if sector.len() >= 512 {
            sector[510..512].copy_from_slice(&[0x55, 0xaa]);
            sector[3..11].copy_from_slice(if is_ntfs { b"NTFS    " } else { b"MSDOS5.0" });
            sector[0x36..0x3a].copy_from_slice(b"FAT1");
        }
        read_and_planned(&sector);
    }

    #[test]
    fn any_bytes_as_a_device_are_kept_or_written_as_they_were_read(
        base in 0usize..10,
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<Option<u8>>(),
        random in prop::collection::vec(any::<u8>(), 0..200),
        is_random in prop::bool::weighted(0.2),
    ) {
        let mut stored = if is_random { random } else { bytes(&devices()[base].0) };
        for (at, byte) in changes {
            let length = stored.len().max(1);
            if let Some(place) = stored.get_mut(usize::from(at) % length) {
                *place = byte;
            }
        }
        if let Some(cut) = cut {
            stored.truncate(usize::from(cut));
        }
        for kind in [0x1100_0001, 0x1200_0002, 0x1300_0003, 0x1400_0006, 0x1500_0007, 0x1600_0009, 0x1700_000a, 0x1800_0001] {
            let value = Value::of(ElementType(kind), &Data::binary(stored.clone()));
            // A byte that is neither 0 nor 1 means yes.
            if !matches!(value, Value::Boolean(_)) {
                prop_assert_eq!(&value.to_data().bytes, &stored);
            }
        }
        if let Some(element) = DeviceElement::parse(&stored) {
            let _ = (element.to_string(), element.partitions(), serde_json::to_string(&element).unwrap());
        }
    }
}

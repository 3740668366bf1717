//! Definitions judged by libvirt's own schema and by QEMU.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use machine::{
    ByteCount, Capabilities, Cpu, Disk, DiskBus, DiskIdentity, DiskLayout, Firmware, FirmwareKind, HypervInterfaces,
    MacAddress, Machine, Nic, NicModel, SectorSize,
};
use target::{Definition, DiskFile, ErrorKind, libvirt, preview};

fn disk(serial: &str, sector: SectorSize) -> Disk {
    Disk {
        path: "/dev/sda".into(),
        format: "raw".into(),
        virtual_size: ByteCount::gib(1),
        logical_sector_size: sector,
        identity: DiskIdentity { serial: Some(serial.into()), ..DiskIdentity::default() },
        layout: DiskLayout::default(),
    }
}

fn nic(last: u8) -> Nic {
    let mac = MacAddress([0x52, 0x54, 0, 0, 0, last]);
    Nic { name: format!("eth{last}"), mac, addresses: Vec::new(), driver: None, link_up: true }
}

fn source(firmware: FirmwareKind, secure_boot: Option<bool>) -> Machine {
    Machine {
        firmware: Firmware { kind: firmware, secure_boot, ..Firmware::default() },
        cpu: Cpu { model: "Xeon".into(), sockets: 2, cores_per_socket: 2, threads_per_core: 1 },
        memory: ByteCount(1_000_000_000),
        nics: vec![nic(1), nic(2)],
        disks: vec![disk("WD-WX1 & <2>", SectorSize::B512), disk("\"S\"", SectorSize::B4096)],
        ..Machine::default()
    }
}

fn capabilities(firmware: FirmwareKind) -> Capabilities {
    Capabilities {
        disk_bus: DiskBus::Virtio,
        nic_model: NicModel::Virtio,
        firmware,
        clock_utc: true,
        secure_boot: None,
        tpm: false,
        hyperv: HypervInterfaces::None,
    }
}

fn files(count: usize) -> Vec<DiskFile> {
    (0..count).map(|n| DiskFile { path: format!("/vm/a & b <{n}>.qcow2").into(), format: "qcow2".into() }).collect()
}

fn validate(xml: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("domain.xml");
    std::fs::write(&path, xml).unwrap();
    match Command::new("virt-xml-validate").arg(&path).arg("domain").output() {
        Ok(output) => assert!(output.status.success(), "{xml}\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => println!("skipped: no virt-xml-validate (package libvirt-clients)"),
    }
}

#[test]
fn every_firmware_and_bus_follows_the_schema() {
    for (firmware, secure) in
        [(FirmwareKind::Bios, None), (FirmwareKind::Uefi, Some(false)), (FirmwareKind::Uefi, Some(true))]
    {
        for bus in [DiskBus::Virtio, DiskBus::Sata, DiskBus::Ide] {
            let mut machine = source(firmware, secure);
            if bus != DiskBus::Virtio {
                machine.disks[1].logical_sector_size = SectorSize::B512;
            }
            for hyperv in [HypervInterfaces::None, HypervInterfaces::Basic, HypervInterfaces::Full] {
                let tpm = hyperv == HypervInterfaces::Full && firmware == FirmwareKind::Uefi;
                let capabilities = Capabilities { disk_bus: bus, tpm, hyperv, ..capabilities(firmware) };
                let disks = files(2);
                let definition = Definition {
                    name: "a & <b>",
                    machine: &machine,
                    capabilities: &capabilities,
                    disks: &disks,
                    link_up: false,
                };
                validate(&libvirt::domain_xml(&definition).unwrap());
            }
        }
    }
}

#[test]
fn the_source_is_kept_where_it_matters() {
    let machine = source(FirmwareKind::Uefi, Some(true));
    let (capabilities, disks) = (capabilities(FirmwareKind::Uefi), files(2));
    let definition =
        Definition { name: "web", machine: &machine, capabilities: &capabilities, disks: &disks, link_up: false };
    let xml = libvirt::domain_xml(&definition).unwrap();
    for expected in [
        r#"<memory unit="MiB">954</memory>"#,
        r#"<vcpu placement="static">4</vcpu>"#,
        r#"<topology sockets="2" cores="2" threads="1"/>"#,
        r#"<loader secure="yes"/>"#,
        r#"<smm state="on"/>"#,
        r#"<blockio logical_block_size="4096" physical_block_size="4096"/>"#,
        r#"<source file="/vm/a &amp; b &lt;0&gt;.qcow2"/>"#,
        "<serial>WD-WX1  2</serial>",
        r#"<mac address="52:54:00:00:00:01"/>"#,
        r#"<clock offset="utc">"#,
    ] {
        assert!(xml.contains(expected), "{expected} in\n{xml}");
    }
    assert_eq!(xml.matches(r#"<link state="down"/>"#).count(), 2);
    assert!(xml.find(r#"dev="vda""#) < xml.find(r#"dev="vdb""#));
}

/// The definition of a machine with one disk.
fn defined(machine: &mut Machine, capabilities: &Capabilities) -> String {
    machine.disks.truncate(1);
    let disks = files(1);
    let definition = Definition { name: "vm", machine, capabilities, disks: &disks, link_up: false };
    let xml = libvirt::domain_xml(&definition).unwrap();
    validate(&xml);
    xml
}

#[test]
fn what_the_newest_guests_want_is_that_of_the_golden_file() {
    let capabilities = Capabilities {
        clock_utc: false,
        secure_boot: Some(true),
        tpm: true,
        hyperv: HypervInterfaces::Full,
        ..capabilities(FirmwareKind::Uefi)
    };
    let xml = defined(&mut source(FirmwareKind::Uefi, None), &capabilities);
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/secure-tpm-hyperv.xml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &xml).unwrap();
    }
    assert_eq!(xml, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn secure_boot_is_as_the_guest_wants_it_else_as_the_source_had_it() {
    let uefi = FirmwareKind::Uefi;
    for (source_had, wanted, bus, expected) in [
        (None, None, DiskBus::Virtio, false),
        (Some(true), None, DiskBus::Virtio, true),
        (Some(true), Some(false), DiskBus::Virtio, false),
        (Some(false), Some(true), DiskBus::Sata, true),
        // The chipset with IDE has no place to keep the keys.
        (Some(true), Some(true), DiskBus::Ide, false),
    ] {
        let capabilities = Capabilities { secure_boot: wanted, disk_bus: bus, ..capabilities(uefi) };
        let mut machine = source(uefi, source_had);
        let xml = defined(&mut machine, &capabilities);
        let found = [r#"<loader secure="yes"/>"#, r#"<smm state="on"/>"#, r#"enabled="yes" name="enrolled-keys""#];
        assert_eq!(found.map(|text| xml.contains(text)), [expected; 3], "{xml}");
        assert_eq!(target::secure_boot(&machine, &capabilities), expected);
    }
    let bios = capabilities(FirmwareKind::Bios);
    let machine = source(FirmwareKind::Bios, None);
    assert!(!target::secure_boot(&machine, &Capabilities { secure_boot: Some(true), ..bios }));
}

#[test]
fn a_guest_gets_only_the_interfaces_of_hyper_v_that_it_makes_use_of() {
    let defined = |hyperv| {
        let capabilities = Capabilities { hyperv, ..capabilities(FirmwareKind::Bios) };
        defined(&mut source(FirmwareKind::Bios, None), &capabilities)
    };
    let [none, basic, full] = [HypervInterfaces::None, HypervInterfaces::Basic, HypervInterfaces::Full].map(defined);
    assert!(!none.contains("hyperv") && !none.contains("<tpm"), "{none}");
    for xml in [&basic, &full] {
        assert!(xml.contains(r#"<spinlocks state="on" retries="4095"/>"#), "{xml}");
        assert!(xml.contains(r#"<timer name="hypervclock" present="yes"/>"#), "{xml}");
    }
    assert!(!basic.contains("synic") && full.contains(r#"<synic state="on"/>"#), "{basic}\n{full}");
}

#[test]
fn what_no_target_has_is_refused() {
    let machine = source(FirmwareKind::Bios, None);
    let (good, two) = (capabilities(FirmwareKind::Bios), files(2));
    let ide = Capabilities { disk_bus: DiskBus::Ide, ..good.clone() };
    let one = files(1);
    let definition = Definition { name: "vm", machine: &machine, capabilities: &good, disks: &two, link_up: false };
    let kind = |d: Definition<'_>| libvirt::domain_xml(&d).unwrap_err().kind;
    assert_eq!(kind(Definition { capabilities: &ide, ..definition }), ErrorKind::Unsupported); // 4096 on IDE
    assert_eq!(kind(Definition { disks: &one, ..definition }), ErrorKind::Invalid);
    assert_eq!(kind(Definition { name: "a/b", ..definition }), ErrorKind::Invalid);
    assert_eq!(kind(Definition { name: "a\nb", ..definition }), ErrorKind::Invalid);
    let unknown = source(FirmwareKind::Unknown, None);
    let open = capabilities(FirmwareKind::Unknown);
    assert_eq!(kind(Definition { machine: &unknown, capabilities: &open, ..definition }), ErrorKind::Invalid);
}

#[test]
fn qemu_takes_the_preview_command() {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        println!("skipped: no QEMU");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disks: Vec<_> = (0..2)
        .map(|n| {
            let path = folder.path().join(format!("it's, {n}.raw"));
            std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
            DiskFile { path, format: "raw".into() }
        })
        .collect();
    for firmware in [FirmwareKind::Bios, FirmwareKind::Uefi] {
        let mut machine = source(firmware, None);
        machine.memory = ByteCount::mib(128);
        let capabilities = capabilities(firmware);
        let definition =
            Definition { name: "vm", machine: &machine, capabilities: &capabilities, disks: &disks, link_up: false };
        let command = preview::qemu_command(&definition).unwrap().replace("-accel kvm ", "");
        // The machine is built and never run; the monitor ends it.
        let line = format!("echo quit | timeout 60 {command} -display none -S -monitor stdio");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

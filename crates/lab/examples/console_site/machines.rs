//! The machines of the site: what a computer room of ten years has. Those that the browser test converts have little in use:
//! the controller refuses what would not fit into the output folder.

use machine::{
    ByteCount, ByteOffset, Cpu, Disk, DiskIdentity, DiskLayout, Family, Firmware, FirmwareKind, Guest, IpNet, Machine,
    Mount, Nic, Note, Part, PartitionTable, SectorSize, Smbios, Volume,
};
use protocol::message::BootMedium;

/// Where a machine of the site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the boot image, approved.
    Ready(BootMedium),
    /// In the boot image, not approved.
    Waiting,
    /// On its own system.
    Live,
    /// Was there once.
    Offline,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const GB: u64 = 1_000_000_000;

pub(crate) fn machines() -> Vec<(Machine, Place)> {
    vec![
        (web1(), Place::Ready(BootMedium::Pxe)),
        (erp_db(), Place::Ready(BootMedium::UefiHttp)),
        (mail(), Place::Ready(BootMedium::Iso)),
        (simple("build-03", "Supermicro", "SYS-5019P-M", ("Fedora Linux 38 (Server Edition)", "38"), 30), Place::Live),
        (
            simple("fileserver", "HPE", "ProLiant DL380 Gen9", ("Red Hat Enterprise Linux 8.9 (Ootpa)", "8.9"), 41),
            Place::Live,
        ),
        (simple("ldap2", "Dell Inc.", "PowerEdge R220", ("Debian GNU/Linux 10 (buster)", "10"), 52), Place::Offline),
        (simple("print", "FUJITSU", "PRIMERGY TX100 S3p", ("Debian GNU/Linux 9 (stretch)", "9"), 63), Place::Offline),
        (simple("", "Dell Inc.", "PowerEdge T320", ("Debian GNU/Linux 11 (bullseye)", "11"), 74), Place::Waiting),
        (simple("", "LENOVO", "ThinkServer TS140", ("Debian GNU/Linux 12 (bookworm)", "12"), 85), Place::Waiting),
    ]
}

/// What was odd about a machine's disks.
pub(crate) fn warnings(machine: &Machine) -> Vec<String> {
    match machine.guest.hostname.as_deref() {
        Some("mail") => vec!["/dev/sda: 3 sectors were reallocated since it was made".into()],
        _ => Vec::new(),
    }
}

fn web1() -> Machine {
    let mut pv = volume(1537, 480 * GB - 1538 * MIB, "LVM2_member", None, 480 * GB - 1538 * MIB);
    pv.parts = vec![
        part("vg0/root", 60 * GIB, "ext4", Some("root"), 2200 * MIB),
        part("vg0/swap", 16 * GIB, "swap", None, 0),
        part("vg0/srv", 240 * GIB, "xfs", Some("srv"), 3500 * MIB),
    ];
    pv.used_bytes = ByteCount(5700 * MIB);
    let system = disk(
        ("/dev/sda", 480 * GB, "INTEL SSDSC2KB48", "PHYF8410002A480BGN"),
        PartitionTable::Gpt,
        vec![volume(1, 512 * MIB, "vfat", Some("ESP"), 6 * MIB), volume(513, GIB, "ext4", Some("boot"), 214 * MIB), pv],
    );
    let data = disk(
        ("/dev/sdb", 2000 * GB, "ST2000NX0253", "W462ABCD"),
        PartitionTable::Gpt,
        vec![volume(1, 2000 * GB - 2 * MIB, "ext4", Some("backup"), 702 * GIB)],
    );
    machine(
        "web1",
        ("Dell Inc.", "PowerEdge R630", 1),
        (FirmwareKind::Uefi, Family::Linux, "Debian GNU/Linux 11 (bullseye)", "11"),
        vec![system, data],
    )
}

fn erp_db() -> Machine {
    let system = disk(
        ("/dev/nvme0n1", 960 * GB, "SAMSUNG MZQL2960HCJR-00A07", "S64FNE0R123456"),
        PartitionTable::Gpt,
        vec![
            volume(1, 300 * MIB, "vfat", Some("SYSTEM"), 31 * MIB),
            volume(301, 16 * MIB, "unknown", None, 16 * MIB),
            volume(317, 700 * GIB, "ntfs", Some("Windows"), 261 * GIB),
            volume(317 + 700 * 1024, 900 * MIB, "ntfs", Some("Recovery"), 512 * MIB),
        ],
    );
    let mut database = disk(
        ("/dev/sda", 4000 * GB, "HGST HUS726040AL", "K7G1ABCL"),
        PartitionTable::Gpt,
        vec![volume(1, 4000 * GB - 2 * MIB, "ntfs", Some("ERPDATA"), 2210 * GIB)],
    );
    database.logical_sector_size = SectorSize::B4096;
    let mut machine = machine(
        "erp-db",
        ("HPE", "ProLiant DL380 Gen10", 12),
        (FirmwareKind::Uefi, Family::Windows, "Windows Server 2016 Standard", "10.0.14393"),
        vec![system, database],
    );
    machine.firmware.secure_boot = Some(true);
    machine.memory = ByteCount(128 * GIB);
    machine
}

fn mail() -> Machine {
    let disk = disk(
        ("/dev/sda", 146 * GB, "MBE2147RC", "D304PB50"),
        PartitionTable::Mbr,
        vec![
            volume(1, 40 * GIB, "ext4", Some("root"), 1600 * MIB),
            volume(1 + 40 * 1024, 8 * GIB, "swap", None, 0),
            volume(2 + 48 * 1024, 80 * GIB, "xfs", Some("spool"), 2900 * MIB),
        ],
    );
    machine(
        "mail",
        ("IBM", "System x3650 M3", 23),
        (FirmwareKind::Bios, Family::Linux, "CentOS Linux 7 (Core)", "7"),
        vec![disk],
    )
}

fn simple(name: &str, maker: &str, product: &str, system: (&str, &str), number: u8) -> Machine {
    let path = ("/dev/sda", 500 * GB, "WDC WD5003ABYZ", name);
    let volumes = vec![
        volume(1, GIB, "ext4", Some("boot"), 180 * MIB),
        volume(1025, 440 * GIB, "xfs", Some("root"), u64::from(number) * 3 * GIB),
    ];
    let mut machine = machine(
        name,
        (maker, product, number),
        (FirmwareKind::Bios, Family::Linux, system.0, system.1),
        vec![disk(path, PartitionTable::Gpt, volumes)],
    );
    if name.is_empty() {
        machine.guest.hostname = None;
    }
    machine
}

fn machine(
    name: &str,
    (maker, product, number): (&str, &str, u8),
    (firmware, family, system, version): (FirmwareKind, Family, &str, &str),
    disks: Vec<Disk>,
) -> Machine {
    let nic = |index: u8, link_up: bool| Nic {
        name: format!("eno{}", index + 1),
        mac: format!("52:54:00:4f:{number:02x}:{index:02x}").parse().unwrap(),
        addresses: match link_up {
            true => vec![IpNet { address: [192, 0, 2, number].into(), prefix_length: 24 }],
            false => Vec::new(),
        },
        driver: Some(if number % 2 == 0 { "tg3" } else { "igb" }.into()),
        link_up,
    };
    Machine {
        firmware: Firmware {
            kind: firmware,
            secure_boot: (firmware == FirmwareKind::Uefi).then_some(false),
            boot_variables: Vec::new(),
        },
        cpu: Cpu {
            model: "Intel(R) Xeon(R) CPU E5-2620 v4 @ 2.10GHz".into(),
            sockets: 2,
            cores_per_socket: 8,
            threads_per_core: 2,
        },
        memory: ByteCount(64 * GIB),
        smbios: Smbios {
            manufacturer: Some(maker.into()),
            product: Some(product.into()),
            serial: Some(format!("SN{number:05}")),
            uuid: Some(format!("4c4c4544-0042-3510-8052-b4c04f4e{number:04x}")),
        },
        nics: vec![nic(0, true), nic(1, false)],
        disks,
        guest: Guest {
            family,
            product: Some(system.into()),
            version: Some(version.into()),
            arch: Some("x86_64".into()),
            hostname: Some(name.into()),
            mounts: match family {
                Family::Linux => {
                    vec![mount("UUID=2f6b1c1e-0001", "/", "ext4"), mount("UUID=2f6b1c1e-0002", "/boot", "ext4")]
                }
                _ => Vec::new(),
            },
            notes: match family {
                Family::Windows => vec![
                    Note::warning("Windows Update asks for a restart", "restart the source first if you can"),
                    Note::info(
                        "member of the domain example.lan",
                        "the VM takes the machine's account over: source and VM must not run at the same time",
                    ),
                ],
                _ => Vec::new(),
            },
        },
    }
}

fn mount(device: &str, mount_point: &str, kind: &str) -> Mount {
    Mount { device: device.into(), mount_point: mount_point.into(), kind: kind.into() }
}

fn disk((path, size, model, serial): (&str, u64, &str, &str), table: PartitionTable, mut volumes: Vec<Volume>) -> Disk {
    for (number, volume) in volumes.iter_mut().enumerate() {
        volume.number = u32::try_from(number + 1).ok();
    }
    Disk {
        path: path.into(),
        format: "raw".into(),
        virtual_size: ByteCount(size),
        logical_sector_size: SectorSize::B512,
        identity: DiskIdentity { wwn: None, serial: Some(serial.into()), model: Some(model.into()) },
        layout: DiskLayout { partition_table: table, partition_table_id: None, volumes },
    }
}

fn volume(offset_mib: u64, size: u64, kind: &str, label: Option<&str>, used: u64) -> Volume {
    Volume {
        offset: ByteOffset(offset_mib * MIB),
        size: ByteCount(size),
        kind: kind.into(),
        label: label.map(Into::into),
        used_bytes: ByteCount(used),
        mount_points: label.into_iter().filter(|label| label.starts_with('/')).map(Into::into).collect(),
        ..Volume::default()
    }
}

fn part(name: &str, size: u64, kind: &str, label: Option<&str>, used: u64) -> Part {
    Part {
        name: name.into(),
        size: ByteCount(size),
        kind: kind.into(),
        label: label.map(Into::into),
        used_bytes: ByteCount(used),
        ..Part::default()
    }
}

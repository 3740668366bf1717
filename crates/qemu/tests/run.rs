//! QEMU itself, without a guest: what it may do, how it ends.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use qemu::{
    Accelerator, Confinement, Disk, DiskBus, ErrorKind, ExitKind, Firmware, Hardware, HbaModel, Image, MachineType,
    Nic, NicBackend, NicModel, SerialPort,
};

fn installed() -> bool {
    let found = std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    if !found {
        println!("skipped: no QEMU");
    }
    found
}

fn image(folder: &tempfile::TempDir, name: &str) -> Image {
    let path = folder.path().join(name);
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Image::new(path, "raw")
}

fn hardware(machine: MachineType) -> Hardware {
    let mut hardware = Hardware::new(machine);
    hardware.accelerator = Some(Accelerator::Tcg);
    hardware.memory_mib = 64;
    hardware
}

#[test]
fn translation_always_works() {
    if installed() {
        assert!(Accelerator::Tcg.works());
    }
}

#[test]
fn a_machine_with_every_kind_of_disk_runs_as_nobody_and_ends_when_told() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hardware = hardware(MachineType::Q35);
    let buses = [DiskBus::Ahci, DiskBus::Virtio, DiskBus::Nvme, DiskBus::Scsi(HbaModel::MegaSas)];
    for (index, bus) in buses.into_iter().enumerate() {
        let mut disk = Disk::new(image(&folder, &format!("disk{index}.raw")), bus);
        disk.serial = Some(format!("SERIAL-{index}"));
        disk.snapshot = index % 2 == 0;
        if bus == DiskBus::Virtio {
            (disk.logical_sector_size, disk.physical_sector_size) = (4096, 4096);
        }
        hardware.disks.push(disk);
    }
    hardware.nics.push(Nic::new(NicModel::E1000e, "52:54:00:00:00:01", NicBackend::Unplugged));
    let user = NicBackend::User { restricted: true, forwards: Vec::new() };
    hardware.nics.push(Nic::new(NicModel::Virtio, "52:54:00:00:00:02", user));
    hardware.serial_ports = vec![SerialPort::default(), SerialPort::logged(folder.path().join("serial.log"))];
    hardware.confinement = Confinement::Unprivileged;

    let vm = hardware.start().unwrap();
    assert_eq!(vm.qmp().status().unwrap(), "running");
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let field = |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap().to_owned();
    assert_eq!(field("Seccomp:"), "Seccomp:\t2");
    if rustix::process::geteuid().is_root() {
        assert_eq!(field("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
        assert_eq!(field("CapEff:"), "CapEff:\t0000000000000000");
    }
    vm.qmp().set_link(1, false).unwrap();
    assert_eq!(vm.qmp().set_link(7, false).unwrap_err().kind, ErrorKind::Qmp);
    assert_eq!(vm.screenshot().unwrap()[..8], *b"\x89PNG\r\n\x1a\n");
    assert!(vm.cpu_time().unwrap() > Duration::ZERO);
    vm.qmp().quit().unwrap();
    assert_eq!(vm.wait(Duration::from_secs(20)).unwrap().kind, ExitKind::Quit);
}

#[test]
fn the_firmware_writes_only_to_the_variables_named() {
    if !installed() || qemu::find_ovmf(false).is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let variables = folder.path().join("variables.fd");
    let mut hardware = hardware(MachineType::Q35);
    hardware.memory_mib = 128;
    hardware.firmware = Firmware::Uefi { secure_boot: false, variables: Some(variables.clone()) };
    let vm = hardware.start().unwrap();
    assert_eq!(vm.qmp().status().unwrap(), "running");
    drop(vm);
    assert_eq!(
        std::fs::metadata(variables).unwrap().len(),
        std::fs::metadata(qemu::find_ovmf(false).unwrap().variables).unwrap().len()
    );
}

#[test]
fn a_machine_has_a_tpm_which_ends_with_it() {
    if !installed() || qemu::find_ovmf(false).is_err() {
        return;
    }
    if !qemu::has_tpms() {
        println!("skipped: no swtpm");
        return;
    }
    for confinement in [Confinement::Sandboxed, Confinement::Unprivileged] {
        let mut hardware = hardware(MachineType::Q35);
        hardware.memory_mib = 128;
        hardware.firmware = Firmware::uefi();
        hardware.tpm = true;
        hardware.confinement = confinement;
        let vm = hardware.start().unwrap();
        let found = vm.qmp().execute("query-tpm", serde_json::json!({})).unwrap();
        assert_eq!(
            (&found[0]["model"], &found[0]["options"]["type"]),
            (&"tpm-crb".into(), &"emulator".into()),
            "{found}"
        );
        assert_eq!(tpms_of_this_process().len(), 1);
        drop(vm);
        assert_eq!(tpms_of_this_process().len(), 0, "{confinement:?}: swtpm outlives its machine");
    }
}

/// Process ids of the TPMs that this process started.
fn tpms_of_this_process() -> Vec<u32> {
    let ours = std::process::id();
    let is_ours = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        stat.contains("(swtpm)") && parent == Some(ours)
    };
    let names =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    names.filter(is_ours).collect()
}

#[test]
fn a_refusal_carries_the_words_of_qemu() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hardware = hardware(MachineType::Pc);
    let mut image = image(&folder, "disk.qcow2");
    image.format = "qcow2".into();
    hardware.disks.push(Disk::new(image, DiskBus::Ide));
    let Err(error) = hardware.start() else { panic!("a file of zeros was taken for a qcow2 image") };
    assert_eq!(error.kind, ErrorKind::Exited);
    assert!(error.to_string().contains("qcow2"), "{error}");
}

#[test]
fn a_dropped_machine_is_gone() {
    if !installed() {
        return;
    }
    let vm = hardware(MachineType::Pc).start().unwrap();
    let process = format!("/proc/{}", vm.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(vm);
    assert!(!std::path::Path::new(&process).exists());
}

//! QEMU's command line, made from [`Hardware`]. Pure apart from the files that a [`Files`] opens.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::hardware::*;
use crate::{Accelerator, Error, ErrorKind, Firmware, Result};

/// The program that is started, found by `PATH`.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// How names of files become names that QEMU can open.
pub(crate) trait Files {
    /// An image: the name for QEMU's block layer.
    fn image(&mut self, path: &Path, writable: bool) -> Result<String>;
    /// A file that QEMU reads once at its start.
    fn plain(&mut self, path: &Path) -> Result<String>;
}

/// Firmware files as they are to be used: code, and variables that may be written.
pub(crate) struct Pflash<'a> {
    pub(crate) code: &'a Path,
    pub(crate) variables: &'a Path,
}

/// All arguments but those of QMP and serial ports, whose descriptors exist only when the process starts.
pub(crate) fn arguments(
    hardware: &Hardware,
    accelerator: Accelerator,
    pflash: Option<Pflash<'_>>,
    files: &mut dyn Files,
) -> Result<Vec<String>> {
    let mut args = Arguments::default();
    args.base(hardware, accelerator);
    args.firmware(hardware, pflash, files)?;
    if let Some(boot) = &hardware.kernel {
        args.pair("-kernel", files.plain(&boot.kernel)?);
        if let Some(initrd) = &boot.initrd {
            args.pair("-initrd", files.plain(initrd)?);
        }
        args.pair("-append", &boot.command_line);
    }
    let mut buses = Buses::new(hardware.machine);
    // A kernel that QEMU loads itself is an option ROM with boot index 0.
    let first = u32::from(hardware.kernel.is_some());
    let networks: u32 = hardware.nics.iter().map(|_| u32::from(hardware.boot_from_network)).sum();
    let first_disk = first + networks + u32::from(hardware.boot_from_cdrom);
    for (index, disk) in (0..).zip(&hardware.disks) {
        args.disk(index, index + first_disk, disk, &mut buses, files)?;
    }
    if let Some(iso) = &hardware.cdrom {
        let order = first + networks + if hardware.boot_from_cdrom { 0 } else { buses.disks };
        args.cdrom(iso, order, &mut buses, files)?;
    }
    for (index, nic) in (0..).zip(&hardware.nics) {
        args.nic(index, nic, hardware.boot_from_network.then_some(first + index));
    }
    // Last: the slots of all else are the same with it and without.
    match hardware.watchdog {
        None => {}
        Some(WatchdogModel::I6300Esb) => args.pair("-device", "i6300esb"),
        Some(WatchdogModel::Bmc) => {
            args.pair("-device", "ipmi-bmc-sim,id=bmc");
            args.pair("-device", "isa-ipmi-kcs,bmc=bmc");
        }
    }
    Ok(args.0)
}

/// Commas end an option in QEMU's syntax unless doubled.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn refuse(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Hardware, context)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }

    fn base(&mut self, hardware: &Hardware, accelerator: Accelerator) {
        self.flag("-nodefaults");
        self.flag("-no-user-config");
        self.pair("-display", "none");
        self.pair("-name", format!("guest={}", escape(&hardware.name)));
        self.pair("-accel", accelerator.argument());
        let flags = if accelerator == Accelerator::Kvm { hardware.kvm_flags.as_slice() } else { &[] };
        self.pair("-cpu", std::iter::once("max").chain(flags.iter().map(String::as_str)).collect::<Vec<_>>().join(","));
        self.pair("-smp", hardware.cpus.to_string());
        self.pair("-m", format!("{}M", hardware.memory_mib));
        self.pair(
            "-rtc",
            match &hardware.clock {
                Clock::Utc => "base=utc".into(),
                Clock::LocalTime => "base=localtime".into(),
                Clock::At(time) => format!("base={}", escape(time)),
            },
        );
        if hardware.on_reset == OnReset::Exit {
            self.flag("-no-reboot");
        }
        self.smbios(&hardware.smbios);
        if hardware.screen {
            self.pair("-device", "VGA");
        }
        if hardware.random {
            self.pair("-device", "virtio-rng-pci");
        }
        for entry in &hardware.fw_cfg {
            self.pair("-fw_cfg", format!("name={},string={}", escape(&entry.name), escape(&entry.content)));
        }
        self.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }

    fn smbios(&mut self, smbios: &Smbios) {
        let fields = [
            ("manufacturer", &smbios.manufacturer),
            ("product", &smbios.product),
            ("serial", &smbios.serial),
            ("uuid", &smbios.uuid),
        ];
        let text: String =
            fields.iter().filter_map(|(key, value)| value.as_ref().map(|v| format!(",{key}={}", escape(v)))).collect();
        if !text.is_empty() {
            self.pair("-smbios", format!("type=1{text}"));
        }
    }

    fn firmware(&mut self, hardware: &Hardware, pflash: Option<Pflash<'_>>, files: &mut dyn Files) -> Result<()> {
        let secure = matches!(hardware.firmware, Firmware::Uefi { secure_boot: true, .. });
        if secure && hardware.machine != MachineType::Q35 {
            return Err(refuse("secure boot: expected machine q35, found pc"));
        }
        let machine = match hardware.machine {
            MachineType::Pc => "pc",
            MachineType::Q35 => "q35",
        };
        self.pair("-machine", if secure { format!("{machine},smm=on") } else { machine.into() });
        if let Some(pflash) = pflash {
            if secure {
                self.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
            }
            let code = escape(&files.image(pflash.code, false)?);
            let variables = escape(&files.image(pflash.variables, true)?);
            self.pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
            self.pair("-drive", format!("if=pflash,unit=1,format=raw,file={variables}"));
        }
        Ok(())
    }

    fn disk(&mut self, index: u32, order: u32, disk: &Disk, buses: &mut Buses, files: &mut dyn Files) -> Result<()> {
        if matches!(disk.bus, DiskBus::Ide | DiskBus::Ahci) && (disk.read_only || disk.logical_sector_size != 512) {
            return Err(refuse(format!("disk {index}: IDE and AHCI disks are writable and have sectors of 512 bytes")));
        }
        let writable = !disk.read_only && !disk.snapshot;
        let mut node = image_node(&disk.image, writable, files)?;
        node["cache"] = json!({ "direct": false, "no-flush": disk.ignore_flush });
        node["discard"] = json!("unmap");
        // `-blockdev` has no temporary snapshots, so the same tree is given to `-drive`.
        let snapshot = if disk.snapshot { "on" } else { "off" };
        let read_only = if disk.read_only { "on" } else { "off" };
        let file = escape(&format!("json:{node}"));
        self.pair("-drive", format!("if=none,id=disk{index},snapshot={snapshot},readonly={read_only},file={file}"));

        let (device, place) = buses.attach(disk.bus)?;
        if let Some(controller) = buses.take_controller() {
            self.pair("-device", controller);
        }
        let serial = match (&disk.serial, disk.bus) {
            (Some(serial), _) => format!(",serial={}", escape(serial)),
            (None, DiskBus::Nvme) => format!(",serial=nvme{index}"), // NVMe has no controller without one
            (None, _) => String::new(),
        };
        let (logical, physical) = (disk.logical_sector_size, disk.physical_sector_size.max(disk.logical_sector_size));
        self.pair(
            "-device",
            format!(
                "{device},id=d{index},drive=disk{index}{place},bootindex={order},\
                 logical_block_size={logical},physical_block_size={physical}{serial}"
            ),
        );
        Ok(())
    }

    fn cdrom(&mut self, iso: &Path, order: u32, buses: &mut Buses, files: &mut dyn Files) -> Result<()> {
        let bus = match buses.machine {
            MachineType::Pc => DiskBus::Ide,
            MachineType::Q35 => DiskBus::Ahci,
        };
        let file = escape(&files.image(iso, false)?);
        self.pair("-drive", format!("if=none,id=cd0,media=cdrom,readonly=on,format=raw,file={file}"));
        let (_, place) = buses.attach(bus)?;
        self.pair("-device", format!("ide-cd,id=cdrom0,drive=cd0{place},bootindex={order}"));
        Ok(())
    }

    fn nic(&mut self, index: u32, nic: &Nic, order: Option<u32>) {
        let backend = match &nic.backend {
            NicBackend::Unplugged => None,
            NicBackend::User { restricted, forwards } => {
                let restrict = if *restricted { ",restrict=on" } else { "" };
                let forwards: String =
                    forwards.iter().map(|(host, port)| format!(",hostfwd=tcp:{host}-:{port}")).collect();
                Some(format!("user,id=net{index}{restrict}{forwards}"))
            }
            NicBackend::Datagrams { own, peer } => Some(format!(
                "dgram,id=net{index},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                escape(&own.to_string_lossy()),
                escape(&peer.to_string_lossy())
            )),
            NicBackend::Tap(name) => Some(format!("tap,id=net{index},ifname={},script=no,downscript=no", escape(name))),
        };
        let netdev = if backend.is_some() { format!(",netdev=net{index}") } else { String::new() };
        if let Some(backend) = backend {
            self.pair("-netdev", backend);
        }
        let model = match nic.model {
            NicModel::Virtio => "virtio-net-pci",
            NicModel::E1000 => "e1000",
            NicModel::E1000e => "e1000e",
            NicModel::Rtl8139 => "rtl8139",
            NicModel::Vmxnet3 => "vmxnet3",
        };
        let rom = if nic.boot_rom { "" } else { ",romfile=" };
        let order = order.map(|order| format!(",bootindex={order}")).unwrap_or_default();
        self.pair("-device", format!("{model},id=nic{index},mac={}{netdev}{rom}{order}", escape(&nic.mac)));
    }
}

/// The tree of block nodes of an image and what lies below it. Only the topmost is written.
fn image_node(image: &Image, writable: bool, files: &mut dyn Files) -> Result<Value> {
    let file = files.image(&image.path, writable)?;
    let is_device = std::fs::metadata(&image.path).is_ok_and(|m| m.file_type().is_block_device());
    let driver = if is_device { "host_device" } else { "file" };
    let mut node = json!({
        "driver": image.format,
        "read-only": !writable,
        "file": { "driver": driver, "filename": file, "read-only": !writable },
    });
    if let Some(backing) = &image.backing {
        node["backing"] = image_node(backing, false, files)?;
    }
    Ok(node)
}

/// Hands out places on the machine's disk controllers.
struct Buses {
    machine: MachineType,
    disks: u32,
    ide: u32,
    ahci: u32,
    scsi: Vec<(HbaModel, u32)>,
    usb: bool,
    pending: Option<String>,
}

impl Buses {
    fn new(machine: MachineType) -> Self {
        Self { machine, disks: 0, ide: 0, ahci: 0, scsi: Vec::new(), usb: false, pending: None }
    }

    /// The device's name and its place, as `,bus=…`.
    fn attach(&mut self, bus: DiskBus) -> Result<(&'static str, String)> {
        self.disks += 1;
        match (bus, self.machine) {
            (DiskBus::Virtio, _) => Ok(("virtio-blk-pci", String::new())),
            (DiskBus::Nvme, _) => Ok(("nvme", String::new())),
            (DiskBus::Ide, MachineType::Q35) => Err(refuse("IDE disk: expected machine pc, found q35")),
            (DiskBus::Ide, MachineType::Pc) => {
                let place = self.ide;
                self.ide += 1;
                match place {
                    0..=3 => Ok(("ide-hd", format!(",bus=ide.{},unit={}", place / 2, place % 2))),
                    _ => Err(refuse("IDE: four drives at most")),
                }
            }
            (DiskBus::Ahci, machine) => {
                let place = self.ahci;
                self.ahci += 1;
                if place > 5 {
                    return Err(refuse("AHCI: six drives at most"));
                }
                let own = machine == MachineType::Q35;
                if !own && place == 0 {
                    self.pending = Some("ich9-ahci,id=ahci".into());
                }
                Ok(("ide-hd", format!(",bus={}.{place}", if own { "ide" } else { "ahci" })))
            }
            (DiskBus::Scsi(model), _) => self.attach_scsi(model),
            (DiskBus::UsbStick, _) => {
                if !self.usb {
                    self.usb = true;
                    self.pending = Some("qemu-xhci,id=usb".into());
                }
                Ok(("usb-storage", ",bus=usb.0,removable=on".into()))
            }
        }
    }

    fn attach_scsi(&mut self, model: HbaModel) -> Result<(&'static str, String)> {
        let known = self.scsi.iter().position(|(m, _)| *m == model);
        let controller = known.unwrap_or_else(|| {
            let name = match model {
                HbaModel::MegaSas => "megasas",
                HbaModel::MptSas1068 => "mptsas1068",
                HbaModel::Lsi53c895a => "lsi53c895a",
                HbaModel::VirtioScsi => "virtio-scsi-pci",
            };
            self.pending = Some(format!("{name},id=scsi{}", self.scsi.len()));
            self.scsi.push((model, 0));
            self.scsi.len() - 1
        });
        let id = self.scsi[controller].1;
        self.scsi[controller].1 += 1;
        if id > 6 {
            return Err(refuse("SCSI: seven disks at most behind one adapter"));
        }
        // Linux passes over an SAS device without an address, and QEMU takes the name (NAA 5) for it.
        let name = if model == HbaModel::MptSas1068 { format!(",wwn=0x5000c5000000{id:04x}") } else { String::new() };
        Ok(("scsi-hd", format!(",bus=scsi{controller}.0,scsi-id={id}{name}")))
    }

    /// The controller that the last disk was the first to need.
    fn take_controller(&mut self) -> Option<String> {
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;
    impl Files for Names {
        fn image(&mut self, path: &Path, _: bool) -> Result<String> {
            Ok(path.display().to_string())
        }
        fn plain(&mut self, path: &Path) -> Result<String> {
            Ok(path.display().to_string())
        }
    }

    fn line(hardware: &Hardware) -> Result<String> {
        arguments(hardware, Accelerator::Tcg, None, &mut Names).map(|args| args.join(" "))
    }

    #[test]
    fn commas_in_names_do_not_end_an_option() {
        let mut hardware = Hardware::new(MachineType::Pc);
        hardware.smbios.product = Some("Box, small".into());
        hardware.disks.push(Disk::new(Image::new("a,b.qcow2", "qcow2"), DiskBus::Ide));
        let line = line(&hardware).unwrap();
        assert!(line.contains("product=Box,, small"), "{line}");
        assert!(line.contains("a,,b.qcow2"), "{line}");
    }

    #[test]
    fn disks_of_one_adapter_share_it() {
        let mut hardware = Hardware::new(MachineType::Q35);
        for _ in 0..2 {
            let bus = DiskBus::Scsi(HbaModel::MegaSas);
            hardware.disks.push(Disk::new(Image::new("d.raw", "raw"), bus));
        }
        let line = line(&hardware).unwrap();
        assert_eq!(line.matches("-device megasas,id=scsi0").count(), 1, "{line}");
        assert!(line.contains("bus=scsi0.0,scsi-id=1"), "{line}");
    }

    #[test]
    fn usb_sticks_share_a_controller_and_can_be_taken_out() {
        let mut hardware = Hardware::new(MachineType::Pc);
        hardware.disks = vec![Disk::new(Image::new("d.raw", "raw"), DiskBus::UsbStick); 2];
        let line = line(&hardware).unwrap();
        assert_eq!(line.matches("-device qemu-xhci,id=usb").count(), 1, "{line}");
        assert_eq!(line.matches("usb-storage,id=d").count(), 2, "{line}");
        assert!(line.contains("drive=disk1,bus=usb.0,removable=on"), "{line}");
    }

    #[test]
    fn impossible_hardware_is_refused() {
        let mut too_many = Hardware::new(MachineType::Pc);
        too_many.disks = vec![Disk::new(Image::new("d.raw", "raw"), DiskBus::Ide); 5];
        let mut read_only = Hardware::new(MachineType::Q35);
        read_only.disks = vec![Disk { read_only: true, ..Disk::new(Image::new("d.raw", "raw"), DiskBus::Ahci) }];
        let mut secure = Hardware::new(MachineType::Pc);
        secure.firmware = Firmware::Uefi { secure_boot: true, variables: None };
        for hardware in [too_many, read_only, secure] {
            assert_eq!(line(&hardware).unwrap_err().kind, ErrorKind::Hardware);
        }
    }

    #[test]
    fn flags_that_only_kvm_has_are_left_out_without_it() {
        let mut hardware = Hardware::new(MachineType::Q35);
        hardware.kvm_flags = vec!["hv-relaxed".into(), "hv-time".into()];
        let line = |accelerator| arguments(&hardware, accelerator, None, &mut Names).unwrap().join(" ");
        assert!(line(Accelerator::Kvm).contains("-cpu max,hv-relaxed,hv-time "), "{}", line(Accelerator::Kvm));
        assert!(line(Accelerator::Tcg).contains("-cpu max "), "{}", line(Accelerator::Tcg));
    }

    #[test]
    fn nothing_reaches_the_network_unless_asked() {
        let line = line(&Hardware::new(MachineType::Pc)).unwrap();
        assert!(line.contains("-nodefaults") && !line.contains("netdev"), "{line}");
    }
}

//! The hardware that a virtual machine shows, as a value.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Accelerator, Firmware};

/// A virtual machine to be started: its hardware, and how its process is confined.
///
/// ```
/// use qemu::{Disk, DiskBus, Hardware, Image, MachineType, SerialPort};
/// let mut hardware = Hardware::new(MachineType::Pc);
/// hardware.memory_mib = 512;
/// hardware.disks.push(Disk::new(Image::new("disk.qcow2", "qcow2"), DiskBus::Ide));
/// hardware.serial_ports.push(SerialPort::default());
/// ```
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Shown in process lists.
    pub name: String,
    /// Chipset.
    pub machine: MachineType,
    /// What starts it.
    pub firmware: Firmware,
    /// How its code is executed; `None` probes.
    pub accelerator: Option<Accelerator>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Identity in the firmware's tables.
    pub smbios: Smbios,
    /// Hard disks, in the order in which the firmware tries them.
    pub disks: Vec<Disk>,
    /// ISO image in a CD drive.
    pub cdrom: Option<PathBuf>,
    /// Whether the firmware tries the CD drive before the disks (else behind them).
    pub boot_from_cdrom: bool,
    /// Network interfaces.
    pub nics: Vec<Nic>,
    /// Whether the firmware tries the network, by each interface in their order, before anything else.
    pub boot_from_network: bool,
    /// Serial ports: the first is the guest's ttyS0.
    pub serial_ports: Vec<SerialPort>,
    /// Kernel to be started without firmware's help.
    pub kernel: Option<DirectBoot>,
    /// Files that the guest reads through fw_cfg.
    pub fw_cfg: Vec<FwCfg>,
    /// Whether there is a VGA.
    pub screen: bool,
    /// Whether there is a virtio random number generator; a physical machine has none.
    pub random: bool,
    /// Whether there is a TPM 2.0, which begins empty and is thrown away with the machine: swtpm.
    pub tpm: bool,
    /// What resets the machine when it hangs.
    pub watchdog: Option<WatchdogModel>,
    /// Flags of the processor that only KVM has (`hv-relaxed`), left out with another accelerator.
    pub kvm_flags: Vec<String>,
    /// The real-time clock.
    pub clock: Clock,
    /// What happens when the guest resets itself.
    pub on_reset: OnReset,
    /// What the process may do.
    pub confinement: Confinement,
    /// Network namespace (`/run/netns/NAME`) in which QEMU runs.
    pub network_namespace: Option<PathBuf>,
}

impl Hardware {
    /// A machine with one processor, 512 MiB of memory, BIOS, a screen, and nothing else.
    pub fn new(machine: MachineType) -> Self {
        Self {
            name: "vconverter".into(),
            machine,
            firmware: Firmware::Bios,
            accelerator: None,
            memory_mib: 512,
            cpus: 1,
            smbios: Smbios::default(),
            disks: Vec::new(),
            cdrom: None,
            boot_from_cdrom: false,
            nics: Vec::new(),
            boot_from_network: false,
            serial_ports: Vec::new(),
            kernel: None,
            fw_cfg: Vec::new(),
            screen: true,
            random: false,
            tpm: false,
            watchdog: None,
            kvm_flags: Vec::new(),
            clock: Clock::Utc,
            on_reset: OnReset::Reboot,
            confinement: Confinement::Sandboxed,
            network_namespace: None,
        }
    }
}

/// Chipset of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineType {
    /// i440FX with IDE: two channels of two.
    Pc,
    /// Q35 with PCI Express and an AHCI of six ports.
    Q35,
}

/// Strings of SMBIOS type 1; what is `None` keeps QEMU's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smbios {
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// System UUID.
    pub uuid: Option<String>,
}

/// A disk image as QEMU opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// File or block device.
    pub path: PathBuf,
    /// `raw`, `qcow2`, …; never guessed, because a guest could write a header that is then believed.
    pub format: String,
    /// The image below an overlay. `None`: as the image itself names it, which an unprivileged process can only
    /// follow where it may read the file.
    pub backing: Option<Box<Image>>,
}

impl Image {
    /// An image without a backing image of its own telling.
    pub fn new(path: impl Into<PathBuf>, format: impl Into<String>) -> Self {
        Self { path: path.into(), format: format.into(), backing: None }
    }

    /// The same image as an overlay over `backing`.
    pub fn over(self, backing: Image) -> Self {
        Self { backing: Some(Box::new(backing)), ..self }
    }
}

/// A hard disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where its content is.
    pub image: Image,
    /// How it is attached.
    pub bus: DiskBus,
    /// Serial number that the guest reads.
    pub serial: Option<String>,
    /// Logical sector size in bytes; IDE and AHCI disks know only 512.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// The guest cannot write (not on IDE and AHCI).
    pub read_only: bool,
    /// What the guest writes goes to a temporary file and is lost.
    pub snapshot: bool,
    /// Ignore the guest's flushes: faster, for disks that are thrown away.
    pub ignore_flush: bool,
}

impl Disk {
    /// A writable disk with sectors of 512 bytes.
    pub fn new(image: Image, bus: DiskBus) -> Self {
        Self {
            image,
            bus,
            serial: None,
            logical_sector_size: 512,
            physical_sector_size: 512,
            read_only: false,
            snapshot: false,
            ignore_flush: false,
        }
    }
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// IDE of the i440FX chipset.
    Ide,
    /// AHCI: the chipset's own on Q35, an added controller on i440FX.
    Ahci,
    /// NVMe, one controller for each disk.
    Nvme,
    /// SCSI or SAS behind a host bus adapter; all disks of one model share one.
    Scsi(HbaModel),
    /// A USB stick in a port of an xHCI controller.
    UsbStick,
}

/// Model of a SCSI host bus adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HbaModel {
    /// LSI MegaRAID SAS 1078.
    MegaSas,
    /// LSI SAS1068.
    MptSas1068,
    /// LSI 53C895A.
    Lsi53c895a,
    /// virtio-scsi.
    VirtioScsi,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Card.
    pub model: NicModel,
    /// Hardware address: `52:54:00:12:34:56`.
    pub mac: String,
    /// What its cable is plugged into.
    pub backend: NicBackend,
    /// Whether its option ROM (iPXE) is there, with which BIOS boots from the network. UEFI has drivers of its own for
    /// virtio-net, e1000 and e1000e, which the ROM would take the place of.
    pub boot_rom: bool,
}

impl Nic {
    /// A card without boot ROM.
    pub fn new(model: NicModel, mac: impl Into<String>, backend: NicBackend) -> Self {
        Self { model, mac: mac.into(), backend, boot_rom: false }
    }
}

/// Model of a network interface card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NicModel {
    /// virtio-net.
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek RTL8139.
    Rtl8139,
    /// VMware's VMXNET3.
    Vmxnet3,
}

/// What a network cable is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicBackend {
    /// Nothing.
    Unplugged,
    /// QEMU's own network of 10.0.2.0/24 behind NAT.
    User {
        /// The guest reaches nothing but QEMU itself.
        restricted: bool,
        /// TCP ports of this machine and the guest's ports that they lead to.
        forwards: Vec<(SocketAddr, u16)>,
    },
    /// An existing tap interface.
    Tap(String),
    /// Frames as datagrams between two Unix sockets.
    Datagrams {
        /// QEMU makes this one.
        own: PathBuf,
        /// The other end makes this one.
        peer: PathBuf,
    },
}

/// A serial port. Its output is always kept in memory for [`crate::Serial`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SerialPort {
    /// File that gets a copy of all output; it is truncated first.
    pub log: Option<PathBuf>,
}

impl SerialPort {
    /// A port whose output is copied to `path`.
    pub fn logged(path: impl Into<PathBuf>) -> Self {
        Self { log: Some(path.into()) }
    }
}

/// A kernel started without boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectBoot {
    /// Linux kernel (bzImage).
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub command_line: String,
}

/// A file that the guest reads through fw_cfg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfg {
    /// `opt/org.example/name`; QEMU wants user entries below `opt/`.
    pub name: String,
    /// Content.
    pub content: String,
}

/// A watchdog that resets the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchdogModel {
    /// Intel 6300ESB: a reset of the machine switches it off.
    I6300Esb,
    /// That of a BMC, by IPMI's KCS interface: it goes on counting while the machine is reset.
    Bmc,
}

/// The real-time clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Runs in UTC.
    Utc,
    /// Runs in local time.
    LocalTime,
    /// Starts at a time in UTC: `2000-01-01T00:00:00`.
    At(String),
}

/// What happens when the guest resets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnReset {
    /// It starts again.
    Reboot,
    /// QEMU exits with [`crate::ExitKind::Reset`].
    Exit,
}

/// What the QEMU process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Confinement {
    /// Our user and files, but no new programs and privileges (seccomp).
    Sandboxed,
    /// The same, and when we are root it runs as `nobody`: files are opened by us and handed over.
    Unprivileged,
}

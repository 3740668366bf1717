//! The lab's source machines: physical in all that a guest can see.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use qemu::{Disk, DiskBus, Firmware, Hardware, Image, MachineType, Nic, NicBackend, NicModel, SerialPort, Smbios};
use serde::{Deserialize, Serialize};

use crate::content::CheckedFile;
use crate::tool::Tool;
use crate::{Error, Result, cache, filesystem, recipe};

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// BIOS, MBR, one ext4 root with a swap file, IDE disk, e1000.
    A,
    /// UEFI without fallback loader, GPT, ESP, /boot, LVM root and swap, AHCI disk, e1000e, no serial console.
    B,
    /// As (a), with dracut's host-only initramfs that lacks virtio, device names instead of UUIDs, and swap on a logical
    /// partition.
    C,
    /// UEFI, GPT, ESP, and everything else on LVM, `/boot` too, AHCI disk, e1000e, serial console. Secure Boot can be on.
    D,
    /// UEFI with systemd-boot: kernel and initramfs on the ESP, which is `/boot`; ext4 root, AHCI disk, e1000e, serial console.
    E,
    /// BIOS with two disks: the first has GRUB's core and the root, the second `/boot`; IDE disks, e1000, serial console.
    F,
}

impl FromStr for Kind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            "c" => Ok(Self::C),
            "d" => Ok(Self::D),
            "e" => Ok(Self::E),
            "f" => Ok(Self::F),
            _ => Err(Error::new(format!("machine: expected a, b, c, d, e or f, found {text:?}"))),
        }
    }
}

/// A source machine on its disk, and the facts that a conversion must preserve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceMachine {
    /// Which machine.
    pub kind: Kind,
    /// Its own name: `phys-a`.
    pub hostname: String,
    /// Hardware address of its NIC.
    pub mac: String,
    /// Name of its NIC's interface while physical.
    pub interface: String,
    /// Manufacturer, product, serial number and UUID of SMBIOS.
    pub smbios: [String; 4],
    /// Serial number of its disk.
    pub disk_serial: String,
    /// Its disk, raw and sparse.
    pub disk: PathBuf,
    /// Size of the disk in bytes.
    pub disk_size: u64,
    /// Its second disk, and the serial number of that.
    #[serde(default)]
    pub second_disk: Option<(PathBuf, String)>,
    /// UEFI: its firmware's variables, with a boot entry.
    pub variables: Option<PathBuf>,
    /// The same with Microsoft's keys and Secure Boot on, for machines that can be started so.
    #[serde(default)]
    pub secure_variables: Option<PathBuf>,
    /// Password of root.
    pub root_password: String,
    /// SSH host keys: type and base64, sorted.
    pub ssh_host_keys: Vec<String>,
    /// Files to be found unchanged.
    pub files: Vec<CheckedFile>,
    /// What lies on the disk, as the tools said that made it.
    pub volumes: Vec<VolumeFact>,
}

/// A partition or logical volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFact {
    /// First byte on the disk. A logical volume is linear and in one piece.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// As blkid names it.
    pub kind: String,
    /// UUID, as blkid prints it; empty where that was not recorded.
    pub uuid: String,
    /// Bytes in use: dumpe2fs of an ext4; the size of anything else.
    pub used_bytes: u64,
    /// `vg0/root` for a logical volume.
    pub logical_volume: Option<String>,
}

/// What a machine is started from.
#[derive(Clone, Copy, Debug)]
pub enum Boot<'a> {
    /// Its own disk.
    Disk,
    /// An ISO in its CD drive, as an operator would choose it in the firmware's menu.
    Iso(&'a Path),
}

impl SourceMachine {
    /// A machine of its own in `folder`: made once (minutes), then copied from the cache (seconds).
    pub fn make(kind: Kind, folder: &Path) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new("the lab needs root"));
        }
        let letter = format!("{kind:?}").to_lowercase();
        let base = crate::base::tarball(recipe::base(kind))?;
        let inputs = format!("{} {}", recipe::VERSION, base.display());
        let cached = cache::entry(&format!("machine-{letter}"), &inputs, |folder| recipe::make(kind, &base, folder))?;
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let facts = cached.join("machine.json");
        let facts = fs::read(&facts).map_err(|e| Error::file(&facts, e))?;
        let mut machine: Self =
            serde_json::from_slice(&facts).map_err(|e| Error::new(format!("machine.json of {letter}: {e}")))?;
        machine.disk = copy(&cached.join(&machine.disk), &folder.join(format!("phys-{letter}.raw")))?;
        if let Some(variables) = &mut machine.variables {
            *variables = copy(&cached.join(&*variables), &folder.join(format!("phys-{letter}.variables.fd")))?;
        }
        if let Some(variables) = &mut machine.secure_variables {
            *variables = copy(&cached.join(&*variables), &folder.join(format!("phys-{letter}.secure.fd")))?;
        }
        if let Some((disk, _)) = &mut machine.second_disk {
            *disk = copy(&cached.join(&*disk), &folder.join(format!("phys-{letter}.second.raw")))?;
        }
        Ok(machine)
    }

    /// Puts a program into its root filesystem, while it is switched off.
    pub fn put_program(&self, program: &Path, path: &str) -> Result<()> {
        filesystem::put_program(&self.disk, self.root()?.offset, program, path)
    }

    /// Takes the last block of its root filesystem: the full disk of a machine that nobody looked after.
    pub fn fill_root(&self) -> Result<()> {
        filesystem::fill_ext4(&self.disk, self.root()?.offset)
    }

    /// Its root filesystem: the largest ext4.
    pub(crate) fn root(&self) -> Result<&VolumeFact> {
        let roots = self.volumes.iter().filter(|volume| volume.kind == "ext4");
        roots.max_by_key(|volume| volume.size).ok_or_else(|| Error::new("the machine has no root"))
    }

    /// The machine as hardware, its cable plugged into `network`, with two serial ports (the second is unused by it).
    pub fn hardware(&self, boot: Boot<'_>, network: NicBackend) -> Hardware {
        let (machine, bus, nic) = match self.kind {
            Kind::A | Kind::C | Kind::F => (MachineType::Pc, DiskBus::Ide, NicModel::E1000),
            Kind::B | Kind::D | Kind::E => (MachineType::Q35, DiskBus::Ahci, NicModel::E1000e),
        };
        let mut hardware = Hardware::new(machine);
        hardware.name = self.hostname.clone();
        hardware.memory_mib = 1024;
        hardware.cpus = 2;
        if let Some(variables) = &self.variables {
            hardware.firmware = Firmware::Uefi { secure_boot: false, variables: Some(variables.clone()) };
        }
        let [manufacturer, product, serial, uuid] = self.smbios.clone().map(Some);
        hardware.smbios = Smbios { manufacturer, product, serial, uuid };
        let mut disk = Disk::new(Image::new(&self.disk, "raw"), bus);
        disk.serial = Some(self.disk_serial.clone());
        hardware.disks.push(disk);
        if let Some((second, serial)) = &self.second_disk {
            let mut disk = Disk::new(Image::new(second, "raw"), bus);
            disk.serial = Some(serial.clone());
            hardware.disks.push(disk);
        }
        if let Boot::Iso(iso) = boot {
            hardware.cdrom = Some(iso.to_path_buf());
            hardware.boot_from_cdrom = true;
        }
        hardware.nics.push(Nic::new(nic, &self.mac, network));
        hardware.serial_ports = vec![SerialPort::default(), SerialPort::default()];
        hardware
    }

    /// Bytes in use on all filesystems; what a copy of used blocks reads at least.
    pub fn used_bytes(&self) -> u64 {
        self.volumes.iter().filter(|v| v.kind == "ext4" || v.kind == "vfat").map(|v| v.used_bytes).sum()
    }
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    Tool::new("cp", "coreutils").args(["--sparse=always", "--reflink=auto"]).args([from, to]).run()?;
    Ok(to.to_path_buf())
}

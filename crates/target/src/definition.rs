//! What a VM is defined from, and the decisions that every hypervisor shares.

use std::path::{Path, PathBuf};

use machine::{Capabilities, Disk, DiskBus, FirmwareKind, Machine, SectorSize};

use crate::{Error, Result};

/// A VM to be defined.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// Name of the VM.
    pub name: &'a str,
    /// The machine that was converted.
    pub machine: &'a Machine,
    /// What the guest works with after its fix-ups.
    pub capabilities: &'a Capabilities,
    /// The converted disks, in the order of [`Machine::disks`].
    pub disks: &'a [DiskFile],
    /// Whether the NICs' links are up: only after the cutover, when the source is off the network.
    pub link_up: bool,
}

/// A converted disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// The image.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// Chipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chipset {
    Pc,
    Q35,
}

impl Definition<'_> {
    /// Checks what no hypervisor could define. Called by every connector before it writes anything.
    pub(crate) fn check(&self) -> Result<()> {
        if self.name.is_empty() || self.name.chars().any(|c| c == '/' || c.is_control()) {
            return Err(Error::invalid(format!(
                "VM name: expected text without slash and control characters, found {:?}",
                self.name
            )));
        }
        if self.machine.disks.len() != self.disks.len() {
            return Err(Error::invalid(format!(
                "disks: expected the {} of the machine, found {} images",
                self.machine.disks.len(),
                self.disks.len()
            )));
        }
        if self.firmware() == FirmwareKind::Unknown {
            return Err(Error::invalid("firmware: expected bios or uefi, found unknown"));
        }
        let bus = self.capabilities.disk_bus;
        let places = match bus {
            DiskBus::Ide => 4,
            DiskBus::Sata => 6,
            DiskBus::Virtio => 24,
        };
        if self.disks.len() > places {
            return Err(Error::unsupported(format!("{bus:?}: {places} disks at most, found {}", self.disks.len())));
        }
        match self.machine.disks.iter().position(|disk| disk.logical_sector_size != SectorSize::B512) {
            Some(index) if bus != DiskBus::Virtio => Err(Error::unsupported(format!(
                "disk {index}: {bus:?} has sectors of 512 bytes only, the disk has {}",
                self.machine.disks[index].logical_sector_size.bytes()
            ))),
            _ => Ok(()),
        }
    }

    /// What the guest was made to start from; where that was left open, what the source started from.
    pub(crate) fn firmware(&self) -> FirmwareKind {
        firmware(self.machine, self.capabilities)
    }

    /// See [`secure_boot`].
    pub(crate) fn secure_boot(&self) -> bool {
        secure_boot(self.machine, self.capabilities)
    }

    pub(crate) fn chipset(&self) -> Chipset {
        chipset(self.capabilities)
    }

    /// Memory in whole MiB, at least 128 MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.machine.memory.0.div_ceil(1 << 20).max(128)
    }

    /// Sockets, cores, threads; each at least one.
    pub(crate) fn topology(&self) -> (u32, u32, u32) {
        let cpu = &self.machine.cpu;
        let bounded = |n: u32| n.clamp(1, 1024);
        (bounded(cpu.sockets), bounded(cpu.cores_per_socket), bounded(cpu.threads_per_core))
    }

    pub(crate) fn cpus(&self) -> u32 {
        let (sockets, cores, threads) = self.topology();
        sockets.saturating_mul(cores).saturating_mul(threads)
    }

    /// Disks with their images.
    pub(crate) fn disks(&self) -> impl Iterator<Item = (usize, &Disk, &DiskFile)> {
        self.machine.disks.iter().zip(self.disks).enumerate().map(|(index, (disk, file))| (index, disk, file))
    }
}

/// What a guest of `machine` starts from.
pub fn firmware(machine: &Machine, capabilities: &Capabilities) -> FirmwareKind {
    match capabilities.firmware {
        FirmwareKind::Unknown => machine.firmware.kind,
        known => known,
    }
}

/// Whether the VM enforces Secure Boot: where the guest is to start so, or the source did and the guest says nothing of it. The
/// firmware keeps its keys by system management mode, which only Q35 has (libvirt: "Secure boot is supported with q35 machine
/// types only").
pub fn secure_boot(machine: &Machine, capabilities: &Capabilities) -> bool {
    let wanted = capabilities.secure_boot.or(machine.firmware.secure_boot) == Some(true);
    wanted && firmware(machine, capabilities) == FirmwareKind::Uefi && chipset(capabilities) == Chipset::Q35
}

/// Q35, but for IDE, which it has not.
fn chipset(capabilities: &Capabilities) -> Chipset {
    if capabilities.disk_bus == DiskBus::Ide { Chipset::Pc } else { Chipset::Q35 }
}

/// An absolute path as text.
pub(crate) fn path_text(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("disk image {}: no absolute path: {e}", path.display())))?;
    match absolute.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(Error::invalid(format!(
            "disk image {}: expected a name in UTF-8 without control characters",
            path.display()
        ))),
    }
}

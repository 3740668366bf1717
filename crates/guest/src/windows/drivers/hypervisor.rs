//! Hardware that hypervisors show to a guest and that no Windows has a driver of its own for.
//!
//! Identifiers are those that the hypervisors' virtual devices report: the virtio specification 1.2, section 4.1.2, with
//! QEMU's subsystem ids; VMware's `pvscsi`, `vmxnet3` and `vmci`; Xen's platform device.

use serde::{Deserialize, Serialize};

use super::rank::Device;

/// What a guest may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// QEMU with KVM, and what is made of it.
    Kvm,
    /// VMware ESXi and Workstation.
    Vmware,
    /// Xen.
    Xen,
}

impl Hypervisor {
    /// All of them. Microsoft's Hyper-V needs no driver from outside.
    pub const ALL: [Self; 3] = [Self::Kvm, Self::Vmware, Self::Xen];
}

/// What a virtual device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A disk controller.
    Disk,
    /// A network adapter.
    Network,
    /// Anything else.
    Other,
}

/// A virtual device.
#[derive(Clone, Copy, Debug)]
pub struct VirtualDevice {
    /// Who shows it.
    pub hypervisor: Hypervisor,
    /// What it is.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// Its longest identifier.
    pub id: &'static str,
}

impl VirtualDevice {
    /// The device with all its identifiers.
    pub fn device(&self) -> Device {
        Device::from_id(self.id)
    }
}

const fn device(hypervisor: Hypervisor, role: Role, name: &'static str, id: &'static str) -> VirtualDevice {
    VirtualDevice { hypervisor, name, role, id }
}

use Hypervisor::{Kvm, Vmware, Xen};
use Role::{Disk, Network, Other};

/// All of them; of virtio the transitional device and the modern one.
pub const VIRTUAL_DEVICES: &[VirtualDevice] = &[
    device(Kvm, Disk, "virtio block device", "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00"),
    device(Kvm, Disk, "virtio block device", "PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Disk, "virtio SCSI controller", "PCI\\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00"),
    device(Kvm, Disk, "virtio SCSI controller", "PCI\\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Network, "virtio network adapter", "PCI\\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00"),
    device(Kvm, Network, "virtio network adapter", "PCI\\VEN_1AF4&DEV_1041&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Other, "virtio balloon", "PCI\\VEN_1AF4&DEV_1002&SUBSYS_00051AF4&REV_00"),
    device(Kvm, Other, "virtio balloon", "PCI\\VEN_1AF4&DEV_1045&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Other, "virtio console", "PCI\\VEN_1AF4&DEV_1003&SUBSYS_00031AF4&REV_00"),
    device(Kvm, Other, "virtio console", "PCI\\VEN_1AF4&DEV_1043&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Other, "virtio random numbers", "PCI\\VEN_1AF4&DEV_1005&SUBSYS_00041AF4&REV_00"),
    device(Kvm, Other, "virtio random numbers", "PCI\\VEN_1AF4&DEV_1044&SUBSYS_11001AF4&REV_01"),
    device(Kvm, Other, "pvpanic", "ACPI\\QEMU0001"),
    device(Kvm, Other, "QEMU firmware configuration", "ACPI\\QEMU0002"),
    device(Vmware, Disk, "VMware paravirtual SCSI", "PCI\\VEN_15AD&DEV_07C0&SUBSYS_07C015AD&REV_02"),
    device(Vmware, Network, "VMware vmxnet3", "PCI\\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01"),
    device(Vmware, Other, "VMware VMCI", "PCI\\VEN_15AD&DEV_0740&SUBSYS_074015AD&REV_10"),
    device(Xen, Other, "Xen platform device", "PCI\\VEN_5853&DEV_0001&SUBSYS_00015853&REV_01"),
    device(Xen, Other, "Xen platform device", "PCI\\VEN_5853&DEV_0002&SUBSYS_00025853&REV_02"),
];

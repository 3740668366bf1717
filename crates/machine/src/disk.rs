//! Disks and what lies on them. The shape of [`Disk`] is the `disks[]` entry of the `inspect` contract.

use serde::{Deserialize, Serialize};

use crate::{ByteCount, ByteOffset, Condition, SectorSize};

/// How a disk is known, whatever name the running kernel gives it (`sda` may be `nvme0n1` in the boot image).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskIdentity {
    /// World Wide Name, as `/sys/block/*/device/wwid` or the NVMe EUI/NGUID gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Serial number, without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model, without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A disk of a machine, or an image of one, with what was found on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Disk {
    /// Device node or file that holds the disk: `/dev/sda`, `disk.qcow2`.
    pub path: String,
    /// `raw` for a block device or a plain image, else the image format: `qcow2`.
    pub format: String,
    /// Size that the disk shows to its machine, in bytes.
    pub virtual_size: ByteCount,
    /// Logical sector size in bytes; partition tables count in it.
    pub logical_sector_size: SectorSize,
    /// What tells the disk from others.
    #[serde(default)]
    pub identity: DiskIdentity,
    /// Partition table and volumes.
    #[serde(flatten)]
    pub layout: DiskLayout,
}

/// What lies where on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiskLayout {
    /// Kind of partition table.
    pub partition_table: PartitionTable,
    /// The table's own identity: GPT disk GUID, or MBR disk signature as 8 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_table_id: Option<String>,
    /// Partitions that can hold data, by offset; a disk without a table that holds a filesystem has one at offset 0.
    pub volumes: Vec<Volume>,
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PartitionTable {
    /// GUID Partition Table (UEFI specification, chapter 5).
    Gpt,
    /// Master Boot Record, with or without logical partitions.
    Mbr,
    /// None that is known.
    #[default]
    None,
}

/// A partition, or a whole disk without partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Volume {
    /// First byte, from the start of the disk.
    pub offset: ByteOffset,
    /// Size in bytes.
    pub size: ByteCount,
    /// Partition number in the table (1-based; logical partitions from 5); `None` without a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Partition type: GUID (GPT, upper case) or hexadecimal byte (MBR, lower case: `83`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_type: Option<String>,
    /// GPT unique partition GUID, lower case, or MBR `signature-number`: what `PARTUUID=` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_uuid: Option<String>,
    /// What it holds, as blkid names it (`ext4`, `vfat`, `LVM2_member`, …), or `unknown`.
    pub kind: String,
    /// Filesystem label.
    pub label: Option<String>,
    /// Filesystem UUID, as blkid prints it.
    pub uuid: Option<String>,
    /// Bytes in use, by the filesystem's own allocation map; the whole size where that is not known.
    pub used_bytes: ByteCount,
    /// Where the guest mounts it, by its own table; a filesystem with subvolumes has several places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<String>,
    /// States that it is in and that matter for its conversion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// A physical volume: the volume group that it belongs to, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_group: Option<String>,
    /// What lies inside: logical volumes.
    pub parts: Vec<Part>,
}

/// Type of an EFI system partition: GUID (UEFI specification, section 5.3.3), and the byte that it has in a Master Boot Record.
const EFI_SYSTEM: [&str; 2] = ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"];

impl Volume {
    /// Whether it is an EFI system partition, by its type.
    pub fn is_efi_system(&self) -> bool {
        self.partition_type.as_deref().is_some_and(|kind| EFI_SYSTEM.iter().any(|own| own.eq_ignore_ascii_case(kind)))
    }
}

/// A logical volume inside a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Part {
    /// `vg0/root`.
    pub name: String,
    /// Size in bytes.
    pub size: ByteCount,
    /// As [`Volume::kind`].
    pub kind: String,
    /// As [`Volume::label`].
    pub label: Option<String>,
    /// As [`Volume::uuid`].
    pub uuid: Option<String>,
    /// As [`Volume::used_bytes`].
    pub used_bytes: ByteCount,
    /// As [`Volume::mount_points`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<String>,
    /// As [`Volume::conditions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Where it lies, in its own order; empty where an older program looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

/// A run of bytes of a logical volume on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Segment {
    /// Position of the disk in [`Machine::disks`](crate::Machine::disks).
    pub disk: usize,
    /// First byte, from the start of that disk.
    pub offset: ByteOffset,
    /// Length in bytes.
    pub length: ByteCount,
}

/// Which volume of a machine is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VolumePlace {
    /// Position of the disk in [`Machine::disks`](crate::Machine::disks).
    pub disk: usize,
    /// [`Volume::offset`].
    pub offset: ByteOffset,
    /// [`Part::name`], where a logical volume inside is meant.
    pub part: Option<String>,
}

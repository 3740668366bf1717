//! Device elements: where a boot application or an operating system lies, to the byte.
//!
//! A device element is the GUID of an object with more options (or zero) and a device descriptor. A descriptor has a
//! header of 16 bytes: type, flags, length of the whole descriptor, zero. Behind it:
//!
//! | type | what follows |
//! | --- | --- |
//! | 0 | a local device (below) |
//! | 5 | the device that was booted from; 56 bytes of zero |
//! | 6 | a partition: 16 bytes that name it (GPT: its GUID; MBR: its offset and zero), then the local device it is on |
//! | 8 | a search: its kind, the element that names the path, the offset of the device to be searched, a path |
//!
//! | local device | what follows its type (4 bytes) |
//! | --- | --- |
//! | 0, a disk | 0 for GPT or 1 for MBR, then 16 bytes: the disk's GUID, or its signature and zero; zeros |
//! | 3, a RAM disk | base address and size (8 bytes each), offset of the image (4 bytes), then a file |
//! | 5, a file | a file |
//! | 6, a virtual disk | 20 bytes of zero, then the descriptor of the device that holds it |
//!
//! A file is version 1, its length, kind 5, the descriptor of the device that it is on, and a path in UTF-16.
//!
//! Microsoft documents what a device can be (BCD WMI provider: `BcdDeviceData` and the classes derived from it), not the
//! bytes. These are from the stores of the test data, the stores that users of iPXE published, and what the ReactOS boot
//! library calls the fields (`BL_DEVICE_DESCRIPTOR`, `BL_LOCAL_DEVICE`, `BL_FILE_PATH_DESCRIPTOR`). What differs in any
//! byte is kept as it is and not interpreted.

use std::fmt;

use machine::ByteOffset;
use serde::Serialize;

use super::bytes;
use crate::hexadecimal;
use crate::windows::{Guid, Partition, PartitionMove};

/// Devices within devices; a file on a virtual disk within a file on a partition has four.
const DEPTH_MAX: usize = 8;

const OPTIONS: usize = 16;
const HEADER: usize = 16;

mod kind {
    pub(super) const LOCAL: u32 = 0;
    pub(super) const BOOT: u32 = 5;
    pub(super) const PARTITION: u32 = 6;
    pub(super) const LOCATE: u32 = 8;
}

mod local {
    pub(super) const DISK: u32 = 0;
    pub(super) const RAM_DISK: u32 = 3;
    pub(super) const FILE: u32 = 5;
    pub(super) const VIRTUAL_DISK: u32 = 6;
}

/// The version of a file's descriptor, and its kind: a device and a path.
const FILE_VERSION: u32 = 1;
const FILE_ON_DEVICE: u32 = 5;
/// Version, length and kind.
const FILE_HEADER: usize = 12;

/// A device element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceElement {
    /// An object with more options, such as those of a RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Guid>,
    /// The device.
    #[serde(flatten)]
    pub device: Device,
}

/// A device, as a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// 1 for RAM disks, else 0.
    #[serde(skip)]
    pub flags: u32,
    /// What it is.
    #[serde(flatten)]
    pub kind: DeviceKind,
    /// What follows within its length; zeros, as a rule.
    #[serde(skip)]
    pub rest: Vec<u8>,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "device", rename_all = "snake_case")]
pub enum DeviceKind {
    /// Where the boot manager was read from.
    Boot,
    /// A partition of a disk.
    Partition {
        /// Which.
        partition: Partition,
    },
    /// A partition of a disk that is itself a file or in memory: a qualified partition of a virtual disk.
    PartitionWithin {
        /// What names it, as it is stored.
        #[serde(serialize_with = "hexadecimal::serialize")]
        id: Vec<u8>,
        /// The disk.
        disk: Box<Local>,
    },
    /// A RAM disk, a file or a virtual disk.
    Local {
        /// Which.
        #[serde(flatten)]
        local: Local,
    },
    /// Found at boot: the first device that has a path.
    Locate {
        /// How it is searched: 0 for the path that another element holds, 1 for a path of its own, 2 as 0 within `parent`.
        how: u32,
        /// The element that holds the path: `0x12000002` is the application's.
        element: u32,
        /// The path, where it is its own.
        path: String,
        /// What is searched; everything where there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        parent: Option<Box<Device>>,
    },
    /// Anything else: its type, and the bytes behind its header.
    Unknown {
        /// The type in its header.
        number: u32,
        /// What follows the header.
        #[serde(serialize_with = "hexadecimal::serialize")]
        bytes: Vec<u8>,
    },
}

/// A device of this machine that is no partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "local", rename_all = "snake_case")]
pub enum Local {
    /// An image in memory.
    RamDisk {
        /// Its address; 0 while it is a file.
        base: u64,
        /// Its size in bytes; 0 while it is a file.
        size: u64,
        /// Where it begins in the file.
        offset: u32,
        /// The file.
        file: FilePath,
    },
    /// A file that is a device: a filesystem within.
    File {
        /// The file.
        file: FilePath,
    },
    /// A virtual disk (VHD).
    VirtualDisk {
        /// The device that it is: a file.
        parent: Box<Device>,
    },
}

/// A file on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilePath {
    /// The device.
    pub on: Box<Device>,
    /// Path from its root, with `\`.
    pub path: String,
}

impl DeviceElement {
    /// The element in `bytes`; `None` where they are no device, or would not be written the same.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let options = Guid(bytes::array(bytes, 0)?);
        let device = Device::parse(bytes.get(OPTIONS..)?, DEPTH_MAX)?;
        let element = Self { options: (options != Guid::ZERO).then_some(options), device };
        (element.to_bytes() == bytes).then_some(element)
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.options.unwrap_or(Guid::ZERO).0.to_vec();
        bytes.extend(self.device.to_bytes());
        bytes
    }

    /// The partitions that it names, those within other devices too.
    pub fn partitions(&self) -> Vec<Partition> {
        let mut found = Vec::new();
        self.clone().device.visit(&mut |partition| found.push(*partition));
        found
    }

    /// The same where partitions have other names by now; `None` if it names none of them.
    pub fn rebound(&self, moves: &[PartitionMove]) -> Option<Self> {
        let mut element = self.clone();
        element.device.visit(&mut |partition| {
            if let Some(moved) = moves.iter().find(|moved| moved.from == *partition) {
                *partition = moved.to;
            }
        });
        (element != *self).then_some(element)
    }
}

impl Device {
    /// A partition.
    pub fn partition(partition: Partition) -> Self {
        Self { flags: 0, kind: DeviceKind::Partition { partition }, rest: vec![0; 16] }
    }

    /// The device that was booted from.
    pub fn boot() -> Self {
        Self { flags: 0, kind: DeviceKind::Boot, rest: vec![0; 56] }
    }

    /// What is found at boot by the path in `element`.
    pub fn locate(element: u32) -> Self {
        let kind = DeviceKind::Locate { how: 0, element, path: String::new(), parent: None };
        Self { flags: 0, kind, rest: Vec::new() }
    }

    /// A descriptor, with `depth` more allowed within.
    fn parse(bytes: &[u8], depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let (number, flags) = (bytes::le32(bytes, 0)?, bytes::le32(bytes, 4)?);
        let length = usize::try_from(bytes::le32(bytes, 8)?).ok()?;
        let content = bytes.get(HEADER..length)?;
        if bytes::le32(bytes, 12)? != 0 {
            return None;
        }
        let known = match number {
            kind::BOOT => Some((DeviceKind::Boot, 0)),
            kind::PARTITION => parse_partition(content, depth),
            kind::LOCAL => Local::parse(content, depth).map(|(local, end)| (DeviceKind::Local { local }, end)),
            kind::LOCATE => parse_locate(content, depth),
            _ => None,
        };
        let device = known.map(|(kind, end)| Self { flags, kind, rest: content.get(end..).unwrap_or_default().into() });
        let unknown = || Self { flags, kind: DeviceKind::Unknown { number, bytes: content.into() }, rest: Vec::new() };
        Some(device.filter(|device| device.to_bytes() == bytes[..length]).unwrap_or_else(unknown))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut content = Vec::new();
        let number = match &self.kind {
            DeviceKind::Boot => kind::BOOT,
            DeviceKind::Partition { partition } => {
                put_partition(&mut content, *partition);
                kind::PARTITION
            }
            DeviceKind::PartitionWithin { id, disk } => {
                content.extend(id);
                disk.put(&mut content);
                kind::PARTITION
            }
            DeviceKind::Local { local } => {
                local.put(&mut content);
                kind::LOCAL
            }
            DeviceKind::Locate { how, element, path, parent } => {
                put_locate(&mut content, (*how, *element), path, parent.as_deref());
                kind::LOCATE
            }
            DeviceKind::Unknown { number, bytes } => {
                content.extend(bytes);
                *number
            }
        };
        content.extend(&self.rest);
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        for field in [number, self.flags, bytes::to_u32(HEADER + content.len()), 0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(content);
        bytes
    }

    fn visit(&mut self, each: &mut dyn FnMut(&mut Partition)) {
        match &mut self.kind {
            DeviceKind::Partition { partition } => each(partition),
            DeviceKind::PartitionWithin { disk, .. } => disk.visit(each),
            DeviceKind::Local { local } => local.visit(each),
            DeviceKind::Locate { parent: Some(parent), .. } => parent.visit(each),
            DeviceKind::Boot | DeviceKind::Locate { parent: None, .. } | DeviceKind::Unknown { .. } => {}
        }
    }
}

/// A partition and how many bytes of `content` it takes.
fn parse_partition(content: &[u8], depth: usize) -> Option<(DeviceKind, usize)> {
    let id: [u8; 16] = bytes::array(content, 0)?;
    let disk = content.get(16..)?;
    if bytes::le32(disk, 0)? != local::DISK {
        let (disk, end) = Local::parse(disk, depth)?;
        return Some((DeviceKind::PartitionWithin { id: id.into(), disk: Box::new(disk) }, 16 + end));
    }
    let disk_id: [u8; 16] = bytes::array(disk, 8)?;
    let partition = match bytes::le32(disk, 4)? {
        0 => Partition::Gpt { disk: Guid(disk_id), partition: Guid(id) },
        1 => Partition::Mbr { signature: bytes::le32(&disk_id, 0)?, offset: ByteOffset(bytes::le64(&id, 0)?) },
        _ => return None,
    };
    Some((DeviceKind::Partition { partition }, 40))
}

fn put_partition(content: &mut Vec<u8>, partition: Partition) {
    match partition {
        Partition::Gpt { disk, partition } => {
            content.extend(partition.0);
            content.extend([0; 8]);
            content.extend(disk.0);
        }
        Partition::Mbr { signature, offset } => {
            content.extend(offset.0.to_le_bytes());
            content.extend([0; 12]);
            content.extend(1u32.to_le_bytes());
            content.extend(signature.to_le_bytes());
            content.extend([0; 12]);
        }
    }
}

/// A search: kind, element, where the parent begins (from the start of the descriptor, 0 for none), a path that ends in
/// zero, the parent.
fn parse_locate(content: &[u8], depth: usize) -> Option<(DeviceKind, usize)> {
    let (how, element) = (bytes::le32(content, 0)?, bytes::le32(content, 4)?);
    let parent_at = usize::try_from(bytes::le32(content, 8)?).ok()?;
    let (path, path_length) = bytes::text(content.get(12..)?)?;
    let mut end = 12 + path_length;
    let mut parent = None;
    if parent_at != 0 {
        if parent_at != HEADER + end {
            return None;
        }
        let found = Device::parse(content.get(end..)?, depth)?;
        end += found.to_bytes().len();
        parent = Some(Box::new(found));
    }
    Some((DeviceKind::Locate { how, element, path, parent }, end))
}

fn put_locate(content: &mut Vec<u8>, (how, element): (u32, u32), path: &str, parent: Option<&Device>) {
    let path = bytes::terminated(path);
    let parent_at = if parent.is_some() { HEADER + 12 + path.len() } else { 0 };
    for field in [how, element, bytes::to_u32(parent_at)] {
        content.extend(field.to_le_bytes());
    }
    content.extend(path);
    content.extend(parent.map(Device::to_bytes).unwrap_or_default());
}

impl Local {
    /// A local device, its type included, and how many bytes it takes.
    fn parse(content: &[u8], depth: usize) -> Option<(Self, usize)> {
        match bytes::le32(content, 0)? {
            local::RAM_DISK => {
                let (file, length) = FilePath::parse(content.get(24..)?, depth)?;
                let (base, size) = (bytes::le64(content, 4)?, bytes::le64(content, 12)?);
                Some((Self::RamDisk { base, size, offset: bytes::le32(content, 20)?, file }, 24 + length))
            }
            local::FILE => {
                let (file, length) = FilePath::parse(content.get(4..)?, depth)?;
                Some((Self::File { file }, 4 + length))
            }
            local::VIRTUAL_DISK => {
                let parent = Device::parse(content.get(24..)?, depth)?;
                let length = parent.to_bytes().len();
                Some((Self::VirtualDisk { parent: Box::new(parent) }, 24 + length))
            }
            _ => None,
        }
    }

    fn put(&self, content: &mut Vec<u8>) {
        match self {
            Self::RamDisk { base, size, offset, file } => {
                content.extend(local::RAM_DISK.to_le_bytes());
                content.extend(base.to_le_bytes());
                content.extend(size.to_le_bytes());
                content.extend(offset.to_le_bytes());
                file.put(content);
            }
            Self::File { file } => {
                content.extend(local::FILE.to_le_bytes());
                file.put(content);
            }
            Self::VirtualDisk { parent } => {
                content.extend(local::VIRTUAL_DISK.to_le_bytes());
                content.extend([0; 20]);
                content.extend(parent.to_bytes());
            }
        }
    }

    fn visit(&mut self, each: &mut dyn FnMut(&mut Partition)) {
        match self {
            Self::RamDisk { file, .. } | Self::File { file } => file.on.visit(each),
            Self::VirtualDisk { parent } => parent.visit(each),
        }
    }
}

impl FilePath {
    /// A file and how many bytes it takes.
    fn parse(content: &[u8], depth: usize) -> Option<(Self, usize)> {
        let length = usize::try_from(bytes::le32(content, 4)?).ok()?;
        if bytes::le32(content, 0)? != FILE_VERSION || bytes::le32(content, 8)? != FILE_ON_DEVICE {
            return None;
        }
        let inner = content.get(FILE_HEADER..length)?;
        let on = Device::parse(inner, depth)?;
        let (path, path_length) = bytes::text(inner.get(on.to_bytes().len()..)?)?;
        let expected = FILE_HEADER + on.to_bytes().len() + path_length;
        (expected == length).then_some((Self { on: Box::new(on), path }, length))
    }

    fn put(&self, content: &mut Vec<u8>) {
        let (on, path) = (self.on.to_bytes(), bytes::terminated(&self.path));
        for field in [FILE_VERSION, bytes::to_u32(FILE_HEADER + on.len() + path.len()), FILE_ON_DEVICE] {
            content.extend(field.to_le_bytes());
        }
        content.extend(on);
        content.extend(path);
    }
}

/// As `bcdedit` shows it, with what names a partition in the place of a drive letter, which only a running Windows knows.
impl fmt::Display for DeviceElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        match self.options {
            Some(options) => write!(f, ",{options}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DeviceKind::Boot => f.write_str("boot"),
            DeviceKind::Partition { partition } => write!(f, "partition=({partition})"),
            DeviceKind::PartitionWithin { disk, .. } => write!(f, "partition of {disk}"),
            DeviceKind::Local { local } => write!(f, "{local}"),
            DeviceKind::Locate { how: 1, path, .. } => write!(f, "locate={}", path.escape_debug()),
            DeviceKind::Locate { element, parent: Some(parent), .. } => {
                write!(f, "{parent},locate=custom:{element:08x}")
            }
            DeviceKind::Locate { element, parent: None, .. } => write!(f, "locate=custom:{element:08x}"),
            DeviceKind::Unknown { number, bytes } => write!(f, "unknown (type {number}, {} bytes)", bytes.len()),
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RamDisk { file, .. } => write!(f, "ramdisk={file}"),
            Self::File { file } => write!(f, "file={file}"),
            Self::VirtualDisk { parent } => match &parent.kind {
                DeviceKind::Local { local: Self::File { file } } => write!(f, "vhd={file}"),
                _ => write!(f, "vhd=[{parent}]"),
            },
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.replace(char::is_control, "\u{fffd}");
        match &self.on.kind {
            DeviceKind::Partition { partition } => write!(f, "[{partition}]{path}"),
            _ => write!(f, "[{}]{path}", self.on),
        }
    }
}

//! What Windows says about a disk's partitions and a volume's place, read from the bytes that its drivers return.
//!
//! Layouts after Microsoft Learn, "DRIVE_LAYOUT_INFORMATION_EX", "PARTITION_INFORMATION_EX" and "VOLUME_DISK_EXTENTS":
//! ```text
//! drive layout   0 style (0 MBR, 1 GPT)   4 count   8 MBR signature | GPT disk GUID   48 entries of 144 bytes
//! entry          0 style   8 offset   16 length   24 number   48 GPT partition GUID
//! extents        0 count   8 extents of 24 bytes: 0 disk   8 offset   16 length
//! ```

use machine::ByteOffset;
use machine::firstboot::{DiskSignature, PartitionIdentity};

use crate::{Error, ErrorKind, Result};

const ENTRIES_AT: usize = 48;
const ENTRY_BYTES: usize = 144;

/// Partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveLayout {
    /// The disk; `None` for one without a partition table.
    pub disk: Option<DiskSignature>,
    /// Its partitions, with their first bytes.
    pub partitions: Vec<(ByteOffset, PartitionIdentity)>,
}

/// Where a volume lies that is in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeExtent {
    /// Number of the disk: `PhysicalDrive1`.
    pub disk: u32,
    /// First byte.
    pub offset: ByteOffset,
}

/// The answer to `IOCTL_DISK_GET_DRIVE_LAYOUT_EX`.
///
/// # Errors
/// [`ErrorKind::Malformed`] where it is shorter than it says.
pub fn parse_drive_layout(bytes: &[u8]) -> Result<DriveLayout> {
    let (style, count) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
    let signature = u32_at(bytes, 8)?;
    let disk = match style {
        0 => DiskSignature::Mbr { signature },
        1 => DiskSignature::Gpt { disk_guid: guid_at(bytes, 8)? },
        _ => return Ok(DriveLayout { disk: None, partitions: Vec::new() }),
    };
    let entries = bytes.get(ENTRIES_AT..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    let entries = entries.take(count as usize);
    if (entries.len() as u64) < u64::from(count) {
        return Err(cut(bytes.len(), "an entry for each partition"));
    }
    let mut partitions = Vec::new();
    for entry in entries {
        let (offset, length) = (ByteOffset(u64_at(entry, 8)?), u64_at(entry, 16)?);
        if length == 0 {
            continue; // an unused entry of the Master Boot Record
        }
        let identity = match disk {
            DiskSignature::Mbr { signature } => PartitionIdentity::Mbr { signature, offset },
            DiskSignature::Gpt { .. } => PartitionIdentity::Gpt { partition_guid: guid_at(entry, 48)? },
        };
        partitions.push((offset, identity));
    }
    Ok(DriveLayout { disk: Some(disk), partitions })
}

/// The answer to `IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS`; `None` for a volume in several pieces.
///
/// # Errors
/// [`ErrorKind::Malformed`] where it is shorter than it says.
pub fn parse_volume_extents(bytes: &[u8]) -> Result<Option<VolumeExtent>> {
    if u32_at(bytes, 0)? != 1 {
        return Ok(None);
    }
    Ok(Some(VolumeExtent { disk: u32_at(bytes, 8)?, offset: ByteOffset(u64_at(bytes, 16)?) }))
}

fn cut(length: usize, expected: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("answer of the disk's driver: expected {expected}, found {length} bytes"))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|part| part.try_into().ok());
    part.ok_or_else(|| cut(bytes.len(), &format!("{N} bytes at {at}")))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

/// The first three fields are little-endian (RFC 9562, section 4, says why others print them otherwise).
fn guid_at(bytes: &[u8], at: usize) -> Result<String> {
    let [a, b, c, d, e, f, g, h, rest @ ..] = array_at::<16>(bytes, at)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok([hex(&[d, c, b, a]), hex(&[f, e]), hex(&[h, g]), hex(&rest[..2]), hex(&rest[2..])].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(style: u32, id: &[u8], partitions: &[(u64, u64, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; ENTRIES_AT + partitions.len() * ENTRY_BYTES];
        bytes[..4].copy_from_slice(&style.to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(partitions.len()).unwrap().to_le_bytes());
        bytes[8..8 + id.len()].copy_from_slice(id);
        for (entry, (offset, length, guid)) in bytes[ENTRIES_AT..].chunks_exact_mut(ENTRY_BYTES).zip(partitions) {
            entry[8..16].copy_from_slice(&offset.to_le_bytes());
            entry[16..24].copy_from_slice(&length.to_le_bytes());
            entry[48..64].fill(*guid);
        }
        bytes
    }

    #[test]
    fn partitions_are_known_as_in_mounted_devices() {
        let bytes = layout(0, &[0x78, 0x56, 0x34, 0x12], &[(1 << 20, 9, 0), (0, 0, 0), (3 << 20, 9, 0)]);
        let found = parse_drive_layout(&bytes).unwrap();
        assert_eq!(found.disk, Some(DiskSignature::Mbr { signature: 0x1234_5678 }));
        let offsets: Vec<u64> = found.partitions.iter().map(|(offset, _)| offset.0).collect();
        assert_eq!(offsets, [1 << 20, 3 << 20]);
        assert_eq!(
            found.partitions[1].1,
            PartitionIdentity::Mbr { signature: 0x1234_5678, offset: ByteOffset(3 << 20) }
        );

        let id: Vec<u8> = (0..16).collect();
        let found = parse_drive_layout(&layout(1, &id, &[(1 << 20, 9, 0xab)])).unwrap();
        let disk_guid = "03020100-0504-0706-0809-0a0b0c0d0e0f".to_owned();
        assert_eq!(found.disk, Some(DiskSignature::Gpt { disk_guid }));
        let partition_guid = "abababab-abab-abab-abab-abababababab".to_owned();
        assert_eq!(found.partitions, [(ByteOffset(1 << 20), PartitionIdentity::Gpt { partition_guid })]);
        assert_eq!(parse_drive_layout(&layout(2, &[], &[])).unwrap().disk, None);
    }

    #[test]
    fn an_answer_that_was_cut_is_refused() {
        let bytes = layout(1, &[7; 16], &[(1 << 20, 9, 1), (2 << 20, 9, 2)]);
        let error = parse_drive_layout(&bytes[..bytes.len() - 1]).unwrap_err().chain();
        assert_eq!(error, "answer of the disk's driver: expected an entry for each partition, found 335 bytes");
        assert!(parse_drive_layout(&bytes[..7]).is_err());
    }

    #[test]
    fn a_volume_in_pieces_is_no_partition() {
        let mut bytes = [0; 32];
        (bytes[0], bytes[8], bytes[18]) = (1, 3, 16);
        assert_eq!(parse_volume_extents(&bytes).unwrap(), Some(VolumeExtent { disk: 3, offset: ByteOffset(1 << 20) }));
        bytes[0] = 2;
        assert_eq!(parse_volume_extents(&bytes).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse_drive_layout(&bytes);
            let _ = parse_volume_extents(&bytes);
        }
    }
}

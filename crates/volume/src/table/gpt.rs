//! GUID Partition Table (UEFI specification 2.10, section 5.3): header in sector 1, entries where it says, a copy of
//! both at the end of the disk.
//!
//! The backup is used when the primary is damaged. Refused: both damaged, entries that overlap, lie outside of the
//! usable sectors or beyond the disk.

use block::{BlockSource, Extent};
use machine::{ByteCount, ByteOffset, SectorSize};

use super::{Partition, Table, TableKind, check};
use crate::Error;
use crate::checksum::crc32;
use crate::error::Result;
use crate::field::{guid, le32, le64, peek};

const SIGNATURE: &[u8] = b"EFI PART";
/// Entries that are read at most; 128 is usual, Linux reads as many as its entry array's 32-bit size allows.
const ENTRIES_MAX: u32 = 4096;
/// Size of one entry at most; 128 is usual, others are 128 × 2ⁿ.
const ENTRY_SIZE_MAX: u32 = 4096;

/// A header whose checksum and whose entries' checksum are right.
struct Header {
    disk_guid: String,
    lba: u64,
    alternate: u64,
    first_usable: u64,
    last_usable: u64,
    entry_size: usize,
    entries: Vec<u8>,
}

/// Reads the table, from the copy if need be.
pub(super) fn load(disk: &dyn BlockSource) -> Result<Table> {
    let declared = disk.logical_sector_size();
    // An image does not tell its sector size: the one that makes sense is the right one.
    let mut sizes = vec![declared];
    sizes.extend([SectorSize::B512, SectorSize::B4096].into_iter().filter(|&s| s != declared));
    let mut reason = None;
    for &size in &sizes {
        match load_header(disk, size, 1) {
            Ok(header) => return table(disk, size, &header, backup_warning(disk, size, &header)),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    let reason = reason.unwrap_or_default();
    for &size in &sizes {
        let last = (disk.size().0 / u64::from(size.bytes())).saturating_sub(1);
        if let Ok(header) = load_header(disk, size, last) {
            let warning = format!("the primary GPT is damaged ({reason}), its backup at the end of the disk is used");
            return table(disk, size, &header, Some(warning));
        }
    }
    Err(Error::malformed(
        u64::from(declared.bytes()),
        format!(
            "GPT: {reason}, and no usable backup at the end of the disk; the table is damaged or the disk truncated"
        ),
    ))
}

/// Says if there is a GPT which no operating system would use, because the sector in front of it is no MBR.
pub(super) fn without_protective_mbr(disk: &dyn BlockSource) -> Vec<String> {
    match load_header(disk, disk.logical_sector_size(), 1) {
        Ok(_) => vec!["there is a GPT without a protective MBR; it is not used, the disk counts as unknown".into()],
        Err(_) => Vec::new(),
    }
}

fn backup_warning(disk: &dyn BlockSource, size: SectorSize, primary: &Header) -> Option<String> {
    match load_header(disk, size, primary.alternate) {
        Ok(backup) if backup.disk_guid == primary.disk_guid && backup.entries == primary.entries => {
            let last = (disk.size().0 / u64::from(size.bytes())).saturating_sub(1);
            (primary.alternate != last).then(|| "the backup GPT is not at the end of the disk".into())
        }
        Ok(_) => Some("the backup GPT differs from the primary, which is used".into()),
        Err(why) => Some(format!("the backup GPT is damaged or missing ({why})")),
    }
}

/// Reads and checks the header at sector `lba` and its entries; an error is the reason why it is none.
fn load_header(disk: &dyn BlockSource, size: SectorSize, lba: u64) -> std::result::Result<Header, String> {
    let bytes = u64::from(size.bytes());
    let at = lba.checked_mul(bytes).ok_or("header beyond the disk")?;
    let sector = peek(disk, at, size.bytes() as usize).ok_or("no readable header")?;
    if sector.get(..8) != Some(SIGNATURE) {
        return Err("no header signature".into());
    }
    let length = le32(&sector, 12) as usize;
    if length < 92 || length > sector.len() {
        return Err(format!("header size: expected 92 to {bytes}, found {length}"));
    }
    let mut covered = sector[..length].to_vec();
    covered[16..20].fill(0);
    let (expected, found) = (le32(&sector, 16), !crc32(!0, &covered));
    if expected != found {
        return Err(format!("header checksum: expected {expected:08x}, found {found:08x}"));
    }
    if le64(&sector, 24) != lba {
        return Err(format!("header position: expected sector {lba}, found {}", le64(&sector, 24)));
    }
    let (count, entry_size) = (le32(&sector, 80), le32(&sector, 84));
    if !(128..=ENTRY_SIZE_MAX).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Err(format!("entry size: expected 128 to {ENTRY_SIZE_MAX}, found {entry_size}"));
    }
    if count == 0 || count > ENTRIES_MAX {
        return Err(format!("entry count: expected 1 to {ENTRIES_MAX}, found {count}"));
    }
    let entries_at = le64(&sector, 72).checked_mul(bytes).ok_or("entries beyond the disk")?;
    let entries = peek(disk, entries_at, count as usize * entry_size as usize).ok_or("no readable entries")?;
    let (expected, found) = (le32(&sector, 88), !crc32(!0, &entries));
    if expected != found {
        return Err(format!("entry checksum: expected {expected:08x}, found {found:08x}"));
    }
    Ok(Header {
        disk_guid: guid(&sector, 56),
        lba,
        alternate: le64(&sector, 32),
        first_usable: le64(&sector, 40),
        last_usable: le64(&sector, 48),
        entry_size: entry_size as usize,
        entries,
    })
}

fn table(disk: &dyn BlockSource, size: SectorSize, header: &Header, warning: Option<String>) -> Result<Table> {
    let bytes = u64::from(size.bytes());
    let at = |lba: u64| lba.saturating_mul(bytes);
    let mut partitions = Vec::new();
    for (entry, number) in header.entries.chunks_exact(header.entry_size).zip(1u32..) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        if first > last || first < header.first_usable || last > header.last_usable {
            let context = format!(
                "GPT entry {number}: expected sectors within {} to {}, found {first} to {last}",
                header.first_usable, header.last_usable
            );
            return Err(Error::malformed(at(header.lba), context));
        }
        let extent = first
            .checked_mul(bytes)
            .zip((last - first).checked_add(1).and_then(|n| n.checked_mul(bytes)))
            .and_then(|(start, length)| Extent::new(ByteOffset(start), ByteCount(length)))
            .ok_or_else(|| Error::malformed(at(header.lba), format!("GPT entry {number}: ends beyond 2^64")))?;
        partitions.push(Partition {
            number,
            extent,
            type_id: guid(entry, 0).to_uppercase(),
            uuid: Some(guid(entry, 16)),
            // Attribute bit 2, "legacy BIOS bootable".
            active: le64(entry, 48) & 4 != 0,
        });
    }
    check(&mut partitions, disk.size().0)?;
    Ok(Table {
        kind: TableKind::Gpt,
        id: Some(header.disk_guid.clone()),
        sector_size: Some(size),
        partitions,
        boot_code: false,
        warnings: warning.into_iter().collect(),
    })
}

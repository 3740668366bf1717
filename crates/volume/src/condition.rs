//! In which state an NTFS volume is, and whether an encrypted one holds its own key.

use std::sync::Arc;

use block::BlockSource;
use machine::Condition;

use crate::field::{guid, le16, le32, le64, peek};
use crate::files::Files;
use crate::ntfs::{Boot, LogState, NtfsVolume, is_dirty, log_state};
use crate::page_file::hibernation_page;

/// Files that a compact Windows keeps compressed, and every Windows has.
const COMPRESSED: [&str; 4] = [
    "/Windows/explorer.exe",
    "/Windows/notepad.exe",
    "/Windows/System32/shell32.dll",
    "/Windows/System32/imageres.dll",
];
const BITLOCKER_GUID: &str = "4967d63b-2e29-4ad8-8399-f6a339e3d001";
/// Size of BitLocker's metadata.
const BITLOCKER_BYTES_MAX: u32 = 64 << 10;
/// The heads in front of its entries: that of the block, that of the metadata.
const BITLOCKER_HEADERS: usize = 64 + 48;
/// Of an entry: a volume's master key, and how it is protected.
const ENTRY_KEY: u16 = 2;
const PROTECTED_BY_NOTHING: u16 = 0;

/// The states of the NTFS volume on `source`, as far as it can be read.
pub(crate) fn of_ntfs(source: &Arc<dyn BlockSource>) -> Vec<Condition> {
    let volume = Boot::load(&**source).and_then(|boot| NtfsVolume::open(Arc::clone(source), boot).ok());
    let Some(volume) = volume else { return Vec::new() };
    let mut found = Vec::new();
    let files = Files::open(Arc::clone(source)).ok();
    if files.as_ref().is_some_and(|files| hibernation_page(&**source, files).is_some()) {
        found.push(Condition::Hibernated);
    }
    if is_dirty(&volume).unwrap_or(false) {
        found.push(Condition::Dirty);
    }
    if log_state(&volume).is_ok_and(|state| state == LogState::InUse) {
        found.push(Condition::LogInUse);
    }
    if files.is_some_and(|files| COMPRESSED.iter().any(|path| files.is_overlaid(path))) {
        found.push(Condition::SystemCompressed);
    }
    found
}

/// The state of the volume on `source`, which BitLocker encrypts (libbde's format notes: FVE metadata block, entries).
pub(crate) fn of_bitlocker(source: &dyn BlockSource) -> Vec<Condition> {
    match bitlocker_keys(source) {
        Some(keys) if keys.contains(&PROTECTED_BY_NOTHING) => vec![Condition::ClearKey],
        _ => Vec::new(),
    }
}

/// How each copy of the volume's master key is protected.
fn bitlocker_keys(source: &dyn BlockSource) -> Option<Vec<u16>> {
    let boot = peek(source, 0, 512)?;
    let at = match &boot[..11] {
        // Vista's form counts in clusters.
        b"\xeb\x52\x90-FVE-FS-" => le64(&boot, 56).checked_mul(u64::from(le16(&boot, 11)) * u64::from(boot[13]))?,
        _ if guid(&boot, 160) == BITLOCKER_GUID => le64(&boot, 176),
        _ if guid(&boot, 424) == BITLOCKER_GUID => le64(&boot, 440),
        _ => return None,
    };
    let size = le32(&peek(source, at, BITLOCKER_HEADERS).filter(|head| head.starts_with(b"-FVE-FS-"))?, 64);
    let length = size.min(BITLOCKER_BYTES_MAX) as usize + 64;
    let bytes = peek(source, at, length.max(BITLOCKER_HEADERS))?;
    let mut rest = &bytes[BITLOCKER_HEADERS..];
    let mut keys = Vec::new();
    while rest.len() >= 8 {
        let (length, kind, value) = (usize::from(le16(rest, 0)), le16(rest, 2), le16(rest, 4));
        let Some(entry) = rest.get(..length).filter(|_| length >= 8) else { break };
        if kind == ENTRY_KEY && value == 8 && length >= 36 {
            keys.push(le16(entry, 34));
        }
        rest = &rest[length..];
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use block::MemorySource;
    use machine::SectorSize;

    use super::*;

    /// A volume with keys that are protected in these ways.
    fn encrypted(keys: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; 16 << 10];
        bytes[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
        bytes[160..176].copy_from_slice(&[
            0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
        ]);
        bytes[176..184].copy_from_slice(&4096u64.to_le_bytes());
        bytes[4096..4104].copy_from_slice(b"-FVE-FS-");
        let size = u32::try_from(48 + keys.len() * 60).unwrap();
        bytes[4160..4164].copy_from_slice(&size.to_le_bytes());
        for (key, at) in keys.iter().zip((4096 + 112..).step_by(60)) {
            bytes[at..at + 8].copy_from_slice(&[60, 0, 2, 0, 8, 0, 1, 0]);
            bytes[at + 34..at + 36].copy_from_slice(&key.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_key_in_the_clear_is_seen_among_others() {
        let of = |bytes: Vec<u8>| of_bitlocker(&MemorySource::new(bytes, SectorSize::B512));
        assert_eq!(of(encrypted(&[0x100, 0x800])), []);
        assert_eq!(of(encrypted(&[0x100, 0x800, 0])), [Condition::ClearKey]);
        let mut torn = encrypted(&[0x100, 0]);
        torn[4096 + 112] = 7;
        assert_eq!(of(torn), []);
        let mut outside = encrypted(&[0]);
        outside[176..184].fill(0xff);
        assert_eq!(of(outside), []);
    }
}

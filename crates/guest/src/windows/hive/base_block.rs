//! The base block: the first 4096 bytes of a hive's file, and, cut to a sector, the first bytes of its logs.
//!
//! Follows M. Suhanov's "Windows registry file format specification", section "Base block".

use super::field::{le32, le64};
use super::{Filetime, malformed};
use crate::{Error, ErrorKind, Result};

/// Its length in a hive's file; bins begin here.
pub const BASE_BLOCK_SIZE: usize = 4096;

/// What of it stands in a log, and is covered by its checksum.
pub(super) const SECTOR: usize = 512;

const CHECKSUM_AT: usize = 508;

/// What a file that begins with a base block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Primary,
    /// Transaction log, `DIRT`; 2 until Windows 2000.
    OldLog,
    /// Transaction log, `HvLE`; Windows 8.1 and later.
    NewLog,
    Unknown(u32),
}

/// A base block, all bytes of it; what is not named here is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseBlock(Vec<u8>);

impl BaseBlock {
    /// The base block at the beginning of `file`; of a log, its first sector and zeros.
    ///
    /// # Errors
    /// A file that is none of `regf`; Windows 3.1 and 95 are named. A wrong checksum is none: it is for the log to heal.
    pub(super) fn parse(file: &[u8]) -> Result<Self> {
        let head =
            file.get(..SECTOR).ok_or_else(|| malformed(0, format!("{} bytes are no registry hive", file.len())))?;
        let unsupported = |what: &str| Err(Error::new(ErrorKind::Unsupported, format!("{what}; it cannot be read")));
        match &head[..4] {
            b"regf" => {}
            b"SHCC" => return unsupported("the registration database of Windows 3.1"),
            b"CREG" => return unsupported("the registry of Windows 95, 98 or Me"),
            found => {
                let found = found.escape_ascii();
                return Err(malformed(0, format!("expected a registry hive (regf), found {found}")));
            }
        }
        let mut bytes = file[..file.len().min(BASE_BLOCK_SIZE)].to_vec();
        bytes.resize(BASE_BLOCK_SIZE, 0);
        Ok(Self(bytes))
    }

    /// Refuses what is not a primary file that this crate reads.
    pub(super) fn require_readable(&self) -> Result<()> {
        let (major, minor) = self.version();
        let kind = self.file_type();
        if kind != FileType::Primary {
            return Err(malformed(28, format!("expected a hive (type 0), found a transaction log ({kind:?})")));
        }
        if le32(&self.0, 32) != 1 {
            let found = le32(&self.0, 32);
            return Err(malformed(32, format!("expected a hive in memory format (1), found {found}")));
        }
        match (major, minor) {
            (1, 2..=6) => Ok(()),
            (1, 0 | 1) => {
                let context = format!("a registry hive of Windows NT 3.1 (version 1.{minor}) cannot be read");
                Err(Error::new(ErrorKind::Unsupported, context))
            }
            _ => {
                let context = format!("registry hive of version {major}.{minor}: expected 1.2 to 1.6");
                Err(Error::new(ErrorKind::Unsupported, context))
            }
        }
    }

    fn put(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Primary and secondary sequence number; a write in progress makes them differ.
    pub(super) fn sequences(&self) -> (u32, u32) {
        (le32(&self.0, 4), le32(&self.0, 8))
    }

    /// Both sequence numbers: no write is in progress.
    pub(super) fn set_sequence(&mut self, sequence: u32) {
        self.put(4, sequence);
        self.put(8, sequence);
    }

    pub(super) fn written(&self) -> Filetime {
        Filetime(le64(&self.0, 12))
    }

    pub(super) fn set_written(&mut self, time: Filetime) {
        self.0[12..20].copy_from_slice(&time.0.to_le_bytes());
    }

    pub(super) fn version(&self) -> (u32, u32) {
        (le32(&self.0, 20), le32(&self.0, 24))
    }

    pub(super) fn minor(&self) -> u32 {
        self.version().1
    }

    pub(super) fn file_type(&self) -> FileType {
        match le32(&self.0, 28) {
            0 => FileType::Primary,
            1 | 2 => FileType::OldLog,
            6 => FileType::NewLog,
            other => FileType::Unknown(other),
        }
    }

    pub(super) fn set_primary(&mut self) {
        self.put(28, 0);
    }

    pub(super) fn root(&self) -> u32 {
        le32(&self.0, 36)
    }

    pub(super) fn bins_size(&self) -> u32 {
        le32(&self.0, 40)
    }

    pub(super) fn set_bins_size(&mut self, size: u32) {
        self.put(40, size);
    }

    /// Bytes of a sector in an old log.
    pub(super) fn log_sector(&self) -> usize {
        match le32(&self.0, 44) {
            8 => 4096,
            _ => SECTOR,
        }
    }

    /// Whether transactions of the kernel's transaction manager may be pending; they live in other files.
    pub(super) fn set_locked(&mut self, locked: bool) {
        let flags = le32(&self.0, 144);
        self.put(144, if locked { flags | 1 } else { flags & !1 });
    }

    /// The partial path that Windows noted, for people.
    pub(super) fn file_name(&self) -> String {
        let units = super::field::units(&self.0[48..112]);
        let end = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
        String::from_utf16_lossy(&units[..end])
    }

    pub(super) fn is_checksum_right(&self) -> bool {
        le32(&self.0, CHECKSUM_AT) == self.checksum()
    }

    pub(super) fn set_checksum(&mut self) {
        self.put(CHECKSUM_AT, self.checksum());
    }

    fn checksum(&self) -> u32 {
        match self.0[..CHECKSUM_AT].chunks_exact(4).fold(0, |sum, group| sum ^ le32(group, 0)) {
            u32::MAX => u32::MAX - 1,
            0 => 1,
            sum => sum,
        }
    }

    /// Whether a log has to be replayed before anything is read.
    pub(super) fn is_dirty(&self) -> bool {
        let (primary, secondary) = self.sequences();
        primary != secondary || !self.is_checksum_right()
    }
}

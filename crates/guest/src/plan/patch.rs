//! Changes of a disk outside of its filesystems, as data: boot sectors and partition tables.

use std::fmt;

use machine::ByteOffset;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, hexadecimal};

/// Bytes of a disk that become others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawPatch {
    /// Position of the disk in [`machine::Machine::disks`].
    pub disk: usize,
    /// The first byte, from the start of the disk.
    pub offset: ByteOffset,
    /// What is there.
    #[serde(with = "hexadecimal")]
    pub old: Vec<u8>,
    /// What will be there; as long as `old`.
    #[serde(with = "hexadecimal")]
    pub new: Vec<u8>,
    /// What it is, and why.
    pub reason: String,
}

impl RawPatch {
    /// The patch of `sector`, which lies at `place`, whose bytes from `at` on become `new`; `None` if they are so already.
    pub(crate) fn of(place: (usize, ByteOffset), sector: &[u8], at: usize, new: &[u8], reason: String) -> Option<Self> {
        let old = sector.get(at..at + new.len())?;
        let offset = ByteOffset(place.1.0.checked_add(at as u64)?);
        (old != new).then(|| Self { disk: place.0, offset, old: old.into(), new: new.into(), reason })
    }

    /// Whether anything is left to be done where `found` is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] where neither the old nor the new bytes are there.
    pub fn is_due(&self, found: &[u8]) -> Result<bool> {
        if found == self.new {
            return Ok(false);
        }
        if found == self.old {
            return Ok(true);
        }
        let (old, found) = (hexadecimal::text(&self.old), hexadecimal::text(found));
        let context = format!("disk {} at {}: expected {old}, found {found}", self.disk, self.offset.0);
        Err(Error::new(ErrorKind::Changed, context))
    }
}

impl fmt::Display for RawPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (hexadecimal::text(&self.old), hexadecimal::text(&self.new));
        write!(f, "disk {} at {}: {old} becomes {new}: {}", self.disk, self.offset.0, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_fits_where_its_old_or_its_new_bytes_are() {
        let sector = [0u8, 1, 2, 3];
        let patch = RawPatch::of((1, ByteOffset(512)), &sector, 2, &[8, 9], "why".into()).unwrap();
        assert_eq!(patch.to_string(), "disk 1 at 514: 0203 becomes 0809: why");
        assert!(patch.is_due(&[2, 3]).unwrap() && !patch.is_due(&[8, 9]).unwrap());
        assert_eq!(patch.is_due(&[2, 9]).unwrap_err().to_string(), "disk 1 at 514: expected 0203, found 0209");
        assert_eq!(RawPatch::of((1, ByteOffset(512)), &sector, 2, &[2, 3], String::new()), None);
        assert_eq!(RawPatch::of((1, ByteOffset(512)), &sector, 3, &[2, 3], String::new()), None);
        let stored = serde_json::to_string(&patch).unwrap();
        assert!(stored.contains(r#""old":"0203","new":"0809""#), "{stored}");
        assert_eq!(serde_json::from_str::<RawPatch>(&stored).unwrap(), patch);
    }
}

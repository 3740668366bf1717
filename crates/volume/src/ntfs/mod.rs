//! NTFS, versions 1.2 to 3.1: boot sector, file records, attributes, allocation map.
//!
//! Microsoft publishes no specification of it; the layouts are those of the Linux kernel's documentation
//! (`Documentation/filesystems/ntfs3.rst`), of the libfsntfs project's format notes and of the Linux-NTFS project's documentation
//! ("NTFS Documentation", Russon and Fledel). Nothing is replayed: a volume whose log holds what was not carried out is
//! copied whole.

mod attribute;
mod boot;
mod log;
mod map;
mod record;
mod runs;
mod stream;
mod volume;

pub(crate) use boot::Boot;
pub(crate) use map::NtfsMap;
pub(crate) use volume::{NtfsVolume, label};

/// Numbers of the files that each volume has.
pub(crate) mod file {
    /// The table of file records itself.
    pub(crate) const TABLE: u64 = 0;
    /// The log of metadata changes.
    pub(crate) const LOG: u64 = 2;
    /// Name, version and flags.
    pub(crate) const VOLUME: u64 = 3;
    /// Which clusters are allocated.
    pub(crate) const BITMAP: u64 = 6;
    /// Clusters that cannot be read.
    pub(crate) const BAD_CLUSTERS: u64 = 8;
    /// The last of those whose places are compared with the bitmap.
    pub(crate) const LAST_COMPARED: u64 = 11;
}

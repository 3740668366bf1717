//! NTFS, versions 1.2 to 3.1: boot sector, file records, attributes, directories, allocation map.
//!
//! Microsoft publishes no specification of it; the layouts are those of the Linux kernel's documentation
//! (`Documentation/filesystems/ntfs3.rst`), of the libfsntfs project's format notes and of the Linux-NTFS project's documentation
//! ("NTFS Documentation", Russon and Fledel). Nothing is replayed: a volume whose log holds what was not carried out is
//! copied whole.

mod attribute;
mod boot;
mod index;
mod log;
mod lznt1;
mod map;
mod record;
mod reparse;
mod runs;
mod stream;
mod upcase;
mod volume;

pub(crate) use attribute::kind;
pub(crate) use boot::Boot;
pub(crate) use index::{Index, IndexedName};
pub(crate) use log::LogState;
pub(crate) use map::{NtfsMap, is_dirty, log_state};
pub(crate) use record::Record;
pub(crate) use reparse::{Reparse, is_link, parse_reparse};
pub(crate) use stream::Stream;
pub(crate) use upcase::UpCase;
pub(crate) use volume::{NtfsVolume, label};

/// Numbers of the files that each volume has.
pub(crate) mod file {
    /// The table of file records itself.
    pub(crate) const TABLE: u64 = 0;
    /// The log of metadata changes.
    pub(crate) const LOG: u64 = 2;
    /// Name, version and flags.
    pub(crate) const VOLUME: u64 = 3;
    /// The root directory.
    pub(crate) const ROOT: u64 = 5;
    /// Which clusters are allocated.
    pub(crate) const BITMAP: u64 = 6;
    /// Clusters that cannot be read.
    pub(crate) const BAD_CLUSTERS: u64 = 8;
    /// Upper-case letters.
    pub(crate) const UPCASE: u64 = 10;
    /// The first that is no file of the volume's own.
    pub(crate) const FIRST_ORDINARY: u64 = 16;
    /// The last of those whose places are compared with the bitmap.
    pub(crate) const LAST_COMPARED: u64 = 11;
}

//! ext2, ext3 and ext4: superblock, group descriptors, allocation map. Follows the kernel's "ext4 Data Structures and
//! Algorithms" (Documentation/filesystems/ext4).

mod group;
mod map;
mod superblock;

pub(crate) use map::ExtMap;
pub(crate) use superblock::{Geometry, Superblock};

/// The superblock's position from the start of the volume.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;

//! FAT12, FAT16 and FAT32 (Microsoft's FAT specification 1.03; ECMA-107): geometry, allocation map, label.

mod geometry;
mod map;

pub(crate) use geometry::{FatKind, Geometry};
pub(crate) use map::FatMap;

use block::BlockSource;

use crate::field::peek;

/// Directory entries read in search of the label; a FAT32 root directory can have 65536.
const LABEL_ENTRIES_MAX: usize = 65_536;
/// The long-name attribute combination.
const ATTR_LONG_NAME: u8 = 0x0f;
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;

/// The label in the root directory, as blkid finds it.
pub(crate) fn label(source: &dyn BlockSource, geometry: &Geometry) -> Option<String> {
    let mut seen = 0;
    let mut search = |bytes: &[u8]| -> Option<Option<[u8; 11]>> {
        for entry in bytes.chunks_exact(32) {
            seen += 1;
            if entry[0] == 0 || seen > LABEL_ENTRIES_MAX {
                return Some(None);
            }
            let cluster = crate::field::le16(entry, 20) | crate::field::le16(entry, 26);
            if entry[0] == 0xe5 || entry[11] & 0x3f == ATTR_LONG_NAME || cluster != 0 {
                continue;
            }
            if entry[11] & (ATTR_VOLUME_ID | ATTR_DIRECTORY) == ATTR_VOLUME_ID {
                let mut name: [u8; 11] = crate::field::array(entry, 0);
                if name[0] == 0x05 {
                    name[0] = 0xe5;
                }
                return Some(Some(name));
            }
        }
        None
    };
    let found = if geometry.kind == FatKind::Fat32 {
        let mut cluster = geometry.root_cluster;
        let mut found = None;
        // A chain is at most as long as the directory may be; a loop ends there too.
        for _ in 0..LABEL_ENTRIES_MAX * 32 / 512 {
            let Some(bytes) = geometry
                .cluster_offset(cluster)
                .and_then(|at| peek(source, at, usize::try_from(geometry.cluster_bytes).ok()?))
            else {
                break;
            };
            found = search(&bytes);
            if found.is_some() {
                break;
            }
            match geometry.next_cluster(source, cluster) {
                Some(next) => cluster = next,
                None => break,
            }
        }
        found
    } else {
        let length = usize::try_from(geometry.data_start - geometry.root_start).ok()?;
        search(&peek(source, geometry.root_start, length)?)
    };
    crate::field::text(&found.flatten()?)
}

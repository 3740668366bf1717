//! Whether a boot loader that knows only blocks could write a file in place: how the filesystem keeps it (Linux, `Documentation/
//! filesystems/fiemap.rst`, `FS_IOC_GETFLAGS`).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `_IOWR('f', 11, struct fiemap)`.
const FIEMAP: libc::Ioctl = 0xc020_660b;
const FIEMAP_FLAG_SYNC: u32 = 1;
/// Extents that are asked for: one is expected.
const EXTENTS: u32 = 2;
/// What an extent may be: the last one, or several in one.
const ALLOWED: u32 = 0x1 | 0x1000;

/// Flags of a file that stand against writing its blocks, and what they mean.
const FILE_FLAGS: [(u32, &str); 6] = [
    (0x4, "is compressed"),
    (0x10, "is immutable"),
    (0x800, "is encrypted"),
    (0x4000, "is written through the journal"),
    (0x10_0000, "is sealed (verity)"),
    (0x1000_0000, "lies within its inode"),
];

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// `struct fiemap` with room for its extents.
#[repr(C)]
#[derive(Default)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS as usize],
}

/// What stands against it that a file is written block by block; `kind` is its filesystem's.
pub(crate) fn in_place_refusal(path: &Path, kind: &str) -> Option<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return Some(format!("cannot be opened: {e}")),
    };
    let flags = rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits());
    if let Some((_, what)) = FILE_FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
        return Some((*what).to_owned());
    }
    match load(&file) {
        Ok(extents) => judge(&extents),
        // FAT has no such call, and no way to keep a file but in its clusters.
        Err(_) if kind == "vfat" => None,
        Err(e) => Some(format!("may not be in blocks of its own: the filesystem does not tell ({e})")),
    }
}

fn load(file: &File) -> io::Result<Vec<Extent>> {
    let mut map = Map { length: u64::MAX, flags: FIEMAP_FLAG_SYNC, count: EXTENTS, ..Map::default() };
    // SAFETY: the kernel writes at most `count` extents behind the head, and there is room for them.
    if unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut map) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(map.extents.into_iter().take(usize::try_from(map.mapped).unwrap_or(0)).collect())
}

fn judge(extents: &[Extent]) -> Option<String> {
    match extents {
        [] => Some("has no blocks".to_owned()),
        [extent] if extent.flags & !ALLOWED != 0 => {
            Some(format!("is not in plain blocks of its own (extent flags {:#x})", extent.flags & !ALLOWED))
        }
        [extent] if extent.logical != 0 || extent.length < 1024 => Some("has a hole".to_owned()),
        [_] => None,
        _ => Some("is in several pieces".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_can_be_written_in_place_and_a_hole_cannot() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(plain.path(), [b'#'; 1024]).unwrap();
        let found = in_place_refusal(plain.path(), "ext4");
        println!("{found:?}");
        // The filesystem of temporary files may be one that does not tell.
        assert!(found.is_none_or(|why| why.contains("does not tell")));
        let sparse = tempfile::NamedTempFile::new().unwrap();
        sparse.as_file().set_len(1024).unwrap();
        assert!(in_place_refusal(sparse.path(), "ext4").is_some());
    }

    #[test]
    fn extents_that_are_shared_or_encoded_are_refused() {
        let extent = |flags| Extent { length: 4096, flags, ..Extent::default() };
        assert_eq!(judge(&[extent(1)]), None);
        for flags in [0x2, 0x4, 0x8, 0x80, 0x200, 0x400, 0x800, 0x2000] {
            assert!(judge(&[extent(1 | flags)]).is_some(), "{flags:#x}");
        }
        assert!(judge(&[extent(0), extent(1)]).is_some());
        assert!(judge(&[]).is_some());
    }
}

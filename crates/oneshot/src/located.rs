//! A folder of the machine, with all that has to be known of the filesystem under it before something is put there for a boot loader.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::mounts::{self, Mount};
use crate::partitions::{self, Partition};
use crate::record::{Filesystem, to_hex};
use crate::system::System;
use crate::{Error, ErrorKind, Result};

/// Room that is left over on a filesystem, in bytes.
pub(crate) const MARGIN_BYTES: u64 = 2 << 20;

/// A folder on a plain partition.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// Its filesystem.
    pub(crate) filesystem: Filesystem,
    /// Its partition.
    pub(crate) partition: Partition,
    /// Where the filesystem is mounted.
    pub(crate) mount: Mount,
    /// The place of the mount point.
    pub(crate) base: PathBuf,
    /// The folder's path within the filesystem; empty for its root.
    pub(crate) inside: String,
}

impl Located {
    /// The place of a path within the filesystem.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// A sentence if it cannot be written.
    pub(crate) fn refusal(&self) -> Option<String> {
        let point = self.mount.point.display();
        self.mount.has("ro").then(|| format!("{point} ({}) is mounted read-only", self.partition.name))
    }

    /// A sentence if other users of the machine can read what is put there: FAT has no permissions but its mount's.
    pub(crate) fn openness(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        const OTHERS_READ: u32 = 0o004;
        let mode = std::fs::metadata(&self.base).ok()?.permissions().mode();
        let is_open = self.mount.kind == "vfat" && mode & OTHERS_READ != 0;
        let point = self.mount.point.display();
        is_open.then(|| format!("every user of the machine can read the files on {point}, the push's single-use credential too (mount option umask)"))
    }

    /// Bytes free for what is put there; `None` where the kernel does not say.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let free = rustix::fs::statvfs(&self.base).ok()?;
        free.f_bavail.checked_mul(free.f_frsize)
    }

    /// The smallest piece that a file takes.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.base).map_or(4096, |free| free.f_frsize).max(512)
    }
}

/// Finds the filesystem of a folder.
///
/// # Errors
/// A sentence that says why nothing can be put there for a boot loader.
pub(crate) fn locate(system: &System, mounts: &[Mount], folder: &str) -> std::result::Result<Located, String> {
    let place = std::fs::canonicalize(system.path(folder)).map_err(|e| format!("{folder} cannot be opened: {e}"))?;
    let real = Path::new("/").join(system.name_of(&place).strip_prefix("/").unwrap_or(system.name_of(&place)));
    let mount = mounts::of_path(mounts, &real)
        .ok_or_else(|| format!("{folder} is on no filesystem that the kernel tells of"))?;
    locate_mounted(system, mount, &real)
}

/// As [`locate`], for a path that has no symbolic links, on its mount.
pub(crate) fn locate_mounted(system: &System, mount: &Mount, real: &Path) -> std::result::Result<Located, String> {
    let point = mount.point.display();
    if !["vfat", "ext2", "ext3", "ext4", "xfs"].contains(&mount.kind.as_str()) {
        return Err(format!("{} is on {point}, a filesystem of kind {}", real.display(), mount.kind));
    }
    if mount.root != Path::new("/") {
        return Err(format!("{point} shows only the folder {} of its filesystem", mount.root.display()));
    }
    let partition = partitions::load(system, &mount.device).map_err(|why| format!("{point}: {why}"))?;
    let node = partitions::node(system, &partition.name);
    let uuid = load_uuid(&node).ok_or_else(|| format!("the UUID of {} cannot be read", partition.name))?;
    let inside = real.strip_prefix(&mount.point).ok().and_then(Path::to_str);
    let inside = inside.ok_or_else(|| format!("{}: expected a path of Unicode characters", real.display()))?.to_owned();
    let partition_uuid = partition.entry.as_ref().map(partitions::Entry::uuid);
    let filesystem = Filesystem { kind: mount.kind.clone(), uuid, partition_uuid, bytes: partition.bytes };
    Ok(Located { filesystem, partition, base: system.path(&mount.point), mount: mount.clone(), inside })
}

/// Where a filesystem of a record is mounted on the running machine.
pub(crate) fn find_mounted(system: &System, mounts: &[Mount], filesystem: &Filesystem) -> Result<PathBuf> {
    let of_kind = mounts.iter().filter(|mount| mount.kind == filesystem.kind && mount.root == Path::new("/"));
    let found = of_kind.filter_map(|mount| locate_mounted(system, mount, &mount.point).ok());
    // One that is mounted elsewhere for reading does not stand in the way of the other.
    let found =
        found.filter(|located| is_same(&located.filesystem, filesystem)).min_by_key(|located| located.mount.has("ro"));
    found.map(|located| located.base).ok_or_else(|| {
        Error::new(ErrorKind::Io, format!("the {} filesystem {} is not mounted", filesystem.kind, filesystem.uuid))
    })
}

/// Whether two descriptions are of one filesystem; a partition's UUID counts where both know it.
fn is_same(a: &Filesystem, b: &Filesystem) -> bool {
    let partition_uuids = (a.partition_uuid.as_ref(), b.partition_uuid.as_ref());
    let differ = matches!(partition_uuids, (Some(a), Some(b)) if a != b);
    (a.kind == b.kind && a.uuid == b.uuid && a.bytes == b.bytes) && !differ
}

fn load_uuid(node: &Path) -> Option<String> {
    let mut start = Vec::new();
    let file = File::open(node).ok()?;
    file.take(4096).read_to_end(&mut start).ok()?;
    parse_uuid(&start)
}

/// The UUID of an ext (superblock at 1024), XFS or FAT filesystem, as blkid prints it, from its first bytes.
fn parse_uuid(start: &[u8]) -> Option<String> {
    let part = |at: usize, length: usize| start.get(at..at + length);
    if part(0, 4)? == b"XFSB" {
        return part(32, 16).map(dashed);
    }
    if part(1024 + 56, 2) == Some(&[0x53, 0xef]) {
        return part(1024 + 104, 16).map(dashed);
    }
    // Microsoft's FAT specification, section 3: BS_VolID, whose place depends on whether there is a BPB_FATSz16.
    if part(510, 2)? == [0x55, 0xaa] {
        let is_fat32 = part(22, 2)? == [0, 0];
        let at = if is_fat32 { 67 } else { 39 };
        let has_id = matches!(part(at - 1, 1)?, [0x28 | 0x29]);
        let id = part(at, 4).filter(|_| has_id)?;
        return Some(format!("{:02X}{:02X}-{:02X}{:02X}", id[3], id[2], id[1], id[0]));
    }
    None
}

fn dashed(bytes: &[u8]) -> String {
    let hex = |range: std::ops::Range<usize>| to_hex(&bytes[range]);
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

/// For the fuzzer.
pub fn fuzz_uuid(bytes: &[u8]) {
    let _ = parse_uuid(bytes);
}

/// Whether the first sector of a disk has GRUB's boot code in it.
pub(crate) fn boot_sector_is_grubs(node: &Path) -> bool {
    let mut sector = [0_u8; 440];
    let read = File::open(node).and_then(|disk| disk.read_exact_at(&mut sector, 0));
    read.is_ok() && sector.windows(4).any(|window| window == b"GRUB")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn uuids_are_read_as_blkid_prints_them() {
        let folder = tempfile::tempdir().unwrap();
        for (tool, arguments) in [
            ("mkfs.ext4", &["-q", "-U", "0a0b0c0d-0102-4304-8506-0708090a0b0c"][..]),
            ("mkfs.ext2", &["-q"]),
            ("mkfs.vfat", &["-F", "32", "-i", "1a2b3c4d"]),
            ("mkfs.vfat", &["-F", "16"]),
        ] {
            let file = folder.path().join("fs");
            File::create(&file).unwrap().set_len(64 << 20).unwrap();
            let made = Command::new(tool).args(arguments).arg(&file).output().expect(tool);
            assert!(made.status.success(), "{made:?}");
            let blkid =
                Command::new("blkid").args(["-p", "-s", "UUID", "-o", "value"]).arg(&file).output().expect("blkid");
            let expected = String::from_utf8(blkid.stdout).unwrap();
            println!("{tool} {expected}");
            assert_eq!(load_uuid(&file).as_deref(), Some(expected.trim()), "{tool} {arguments:?}");
        }
    }

    #[test]
    fn xfs_has_its_uuid_at_32() {
        let mut start = vec![0; 4096];
        start[..4].copy_from_slice(b"XFSB");
        start[32..48].copy_from_slice(&[0xab; 16]);
        assert_eq!(parse_uuid(&start).unwrap(), "abababab-abab-abab-abab-abababababab");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1200)) {
            fuzz_uuid(&bytes);
            if bytes.len() >= 512 {
                bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
                fuzz_uuid(&bytes);
            }
        }
    }
}

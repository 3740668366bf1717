//! NTFS as ntfs-3g makes, fills and reads it.
#![allow(dead_code)] // each test program uses its own part

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sh;

/// Makes a filesystem in `folder` with `options` of mkntfs, mounts it with ntfs-3g and runs `script` in its root.
pub(crate) fn made(folder: &Path, size: &str, options: &str, script: &str) -> PathBuf {
    let image = folder.join("ntfs.img");
    let format = format!("rm -f $1; truncate -s {size} $1; mkntfs -qFfL made {options} $1 >/dev/null 2>&1");
    sh(&format, &[&image]);
    mounted(&image, "rw", script);
    image
}

/// Runs `script` in the root of the mounted filesystem; its output. `$1` is the folder that holds the image.
pub(crate) fn mounted(image: &Path, options: &str, script: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let all = format!(
        "ntfs-3g -o {options},big_writes,compression $1 $2 && trap 'cd /; umount $2' EXIT; set -- $(dirname $1) $2; cd $2
         {script}"
    );
    sh(&all, &[image, folder.path()])
}

/// A checksum of each file, by name, as ntfs-3g reads them.
pub(crate) fn checksums(image: &Path) -> String {
    mounted(image, "ro", "find . -type f -exec sha256sum {} + | sort -k 2")
}

/// `N` bytes of a file.
pub(crate) fn bytes_at<const N: usize>(image: &Path, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    std::fs::File::open(image).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

pub(crate) fn patch(image: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where the file record of this number begins in an image whose clusters have `cluster` bytes and whose table is whole.
pub(crate) fn record(image: &Path, cluster: u64, number: u64) -> u64 {
    u64::from_le_bytes(bytes_at(image, 48)) * cluster + number * 1024
}

/// Where the first attribute of this kind begins in the record at `record`.
pub(crate) fn attribute(image: &Path, record: u64, kind: u32) -> u64 {
    let mut at = record + u64::from(u16::from_le_bytes(bytes_at(image, record + 20)));
    while u32::from_le_bytes(bytes_at(image, at)) != kind {
        at += u64::from(u32::from_le_bytes(bytes_at(image, at + 4)));
    }
    at
}

/// Where the first run of the value lies whose attribute is at `attribute`, in clusters.
pub(crate) fn first_run(image: &Path, attribute: u64) -> u64 {
    let at = attribute + u64::from(u16::from_le_bytes(bytes_at(image, attribute + 32)));
    let [head]: [u8; 1] = bytes_at(image, at);
    let place: [u8; 8] = bytes_at(image, at + 1 + u64::from(head & 15));
    let bits = u32::from(head >> 4) * 8;
    u64::from_le_bytes(place) & ((1 << bits) - 1)
}

/// A filesystem that ntfs-3g shows, until this is dropped.
pub(crate) struct Mounted {
    pub(crate) root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// Mounts an image, in which the filesystem begins at `offset`, to be read.
    pub(crate) fn read_only(image: &Path, offset: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // ntfs-3g knows no offsets, a loop device does.
        let mount = format!(
            "device=$1; [ {offset} = 0 ] || device=$(losetup -r -f --show -o {offset} $1); ntfs-3g -o ro $device $2
             [ $device = $1 ] || losetup -d $device"
        );
        sh(&mount, &[image, folder.path()]);
        Self { root: folder.path().to_owned(), _folder: folder }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg(&self.root).status().unwrap();
    }
}

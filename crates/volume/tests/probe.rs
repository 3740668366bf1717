//! Kinds, labels and UUIDs are those that `blkid -p` prints, on real images and on filesystems made by their own tools.
#![allow(clippy::unwrap_used)] // a test fails by it
mod support;

use std::path::Path;

use support::{disk, sh, test_data};
use volume::probe;

/// Kinds that blkid 2.38 knows and that are called `unknown` here: nothing boots from them.
const NOT_KNOWN: [&str; 14] = [
    "adaptec_raid_member",
    "befs",
    "cramfs",
    "drbd",
    "hfs",
    "hpfs",
    "hpt45x_raid_member",
    "jmicron_raid_member",
    "minix",
    "nss",
    "romfs",
    "ubi",
    "vdo",
    "xfs_external_log",
];

/// Kind, label and UUID.
type Facts = (String, Option<String>, Option<String>);

/// Reads facts as blkid prints them for udev; characters that are not plain stand there as `\xHH`.
fn facts(text: &str) -> Facts {
    let value = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        let mut bytes = Vec::new();
        let mut rest = value;
        while !rest.is_empty() {
            match rest.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok()) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &rest[4..];
                }
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    bytes.extend(&rest.as_bytes()[..length]);
                    rest = &rest[length..];
                }
            }
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    (value("ID_FS_TYPE").unwrap_or_else(|| "unknown".into()), value("ID_FS_LABEL_ENC"), value("ID_FS_UUID_ENC"))
}

/// Differences between blkid and the probe on one image. Where upstream's own expectation lies beside it, newer than the
/// installed blkid, that will do too.
fn difference(path: &Path) -> Option<String> {
    let found = probe(&*disk(path));
    let output = std::process::Command::new("blkid").args(["-p", "-o", "udev"]).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let actual = (found.kind.clone(), found.label.clone(), found.uuid.clone());
    let newer = std::fs::read_to_string(path.with_extension("expected")).ok();
    if newer.is_some_and(|newer| facts(&newer) == actual) {
        return None;
    }
    if text.contains("ID_FS_AMBIVALENT") {
        let fine = !found.also.is_empty();
        return (!fine).then(|| format!("{}: blkid is ambivalent, found {found:?}", path.display()));
    }
    let expected = facts(&text);
    if NOT_KNOWN.contains(&expected.0.as_str()) && found.kind == "unknown" {
        return None;
    }
    (actual != expected).then(|| format!("{}: expected {expected:?}, found {found:?}", path.display()))
}

fn assert_alike(folder: &Path) -> usize {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_none_or(|e| e != "expected"));
    paths.sort();
    let differences: Vec<String> = paths.iter().filter_map(|path| difference(path)).collect();
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), paths.len(), differences.join("\n"));
    paths.len()
}

fn assert_group_alike(group: &str, unpack: &str, at_least: usize) {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let archive = data.join("groups").join(group);
    sh(unpack, &[&archive, folder.path()]);
    assert!(assert_alike(folder.path()) >= at_least);
}

#[test]
fn images_of_util_linux_are_as_blkid_has_them() {
    let unpack = "cd $2; tar --zstd -xf $1; rm -f *.tsv pt-*; xz -dq *.xz";
    assert_group_alike("blkid-images.tar.zst", unpack, 60);
}

#[test]
fn images_of_e2fsprogs_are_as_blkid_has_them() {
    let unpack = "cd $2; tar --zstd -xf $1; rm -f *.tsv; for f in *; do case $f in *.gz) gunzip -q $f;; *.xz) xz -dq $f;; *.zst) zstd -dq --rm $f;; esac; done";
    assert_group_alike("e2fs-images.tar.zst", unpack, 100);
}

#[test]
fn disks_of_other_projects_are_as_blkid_has_them() {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let unpack = "for f in $1/*.raw.zst $1/*.dd.zst; do zstd -dq --long=27 $f -o $2/$(basename $f .zst); done";
    sh(unpack, &[&data.join("disk"), folder.path()]);
    assert!(assert_alike(folder.path()) >= 18);
}

#[test]
fn fresh_filesystems_are_as_blkid_has_them() {
    let folder = tempfile::tempdir().unwrap();
    sh(
        "cd $1
         mk() { truncate -s 64M $1; shift; \"$@\" >/dev/null 2>&1; }
         mk ext2 mkfs.ext2 -qF -L two ext2
         mk ext3 mkfs.ext3 -qF ext3
         mk ext4 mkfs.ext4 -qF -L 'a b' ext4
         mk nojournal mkfs.ext4 -qF -O ^has_journal nojournal
         mk journal mkfs.ext4 -qF -O journal_dev journal
         mk fat12 mkfs.vfat -F 12 -s 64 -n TWELVE fat12
         mk fat16 mkfs.vfat -F 16 fat16
         mk fat32 mkfs.vfat -F 32 -n THIRTY fat32
         mk swap mkswap -L sw swap
         mk swap64k mkswap -p 65536 swap64k
         mk empty true",
        &[folder.path()],
    );
    assert_eq!(assert_alike(folder.path()), 11);
}

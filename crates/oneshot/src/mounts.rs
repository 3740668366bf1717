//! Where filesystems are mounted: `/proc/self/mountinfo` (Linux, `Documentation/filesystems/proc.rst`, section 3.5).

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::system::System;

/// Most mounts that are looked at.
const MOUNTS_MAX: usize = 16_384;

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number: `8:1`.
    pub(crate) device: String,
    /// Which folder of the filesystem is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    /// `ext4`, `vfat`.
    pub(crate) kind: String,
    /// What is mounted: `/dev/sda1`.
    pub(crate) source: String,
    /// Options of the mount and of the filesystem.
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// Whether an option is set.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// All mounts, in the order in which they were made.
pub(crate) fn load(system: &System) -> Vec<Mount> {
    parse(&system.text("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().take(MOUNTS_MAX).filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let device = left.next()?.to_owned();
    let (root, point) = (unescape(left.next()?), unescape(left.next()?));
    let mount_options = left.next()?;
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let source = unescape(right.next().unwrap_or_default()).to_string_lossy().into_owned();
    let options = mount_options.split(',').chain(right.next().unwrap_or_default().split(','));
    Some(Mount { device, root, point, kind, source, options: options.map(str::to_owned).collect() })
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// The mount that an absolute path without symbolic links is on: of those around it the innermost, of several at one point the last.
pub(crate) fn of_path<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    around.max_by_key(|mount| mount.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 25 254:2 / /boot/e\\040f\\134i rw shared:2 master:3 - vfat /dev/vda2 rw,codepage=437
31 25 0:5 / /tmp rw - tmpfs tmpfs rw
32 25 254:3 / /tmp ro - ext2 /dev/vda3 rw
broken line
";

    #[test]
    fn the_innermost_and_last_mount_holds_a_path() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        let device = |path: &str| of_path(&mounts, Path::new(path)).map(|mount| mount.device.as_str());
        assert_eq!(device("/boot/grub"), Some("254:0"));
        assert_eq!(device("/boot/e f\\i/EFI"), Some("254:2"));
        assert_eq!(device("/tmp/x"), Some("254:3"));
        assert_eq!(device("/tmpx"), Some("254:0"));
        let tmp = of_path(&mounts, Path::new("/tmp")).unwrap();
        assert!(tmp.has("ro") && tmp.has("rw") && mounts[0].has("errors=remount-ro"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_without_panic(text: String, line in "[0-9 :/\\\\-]{0,60} - [a-z ]{0,20}") {
            let _ = (parse(&text), parse(&line));
        }
    }
}

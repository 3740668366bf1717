//! Reparse points ([MS-FSCC] section 2.1.2): links, and what else has another meaning than its own data.

use crate::field::{le16, le32};

const TAG_MOUNT_POINT: u32 = 0xa000_0003;
const TAG_SYMLINK: u32 = 0xa000_000c;
const TAG_WOF: u32 = 0x8000_0017;
const TAG_DEDUPLICATED: u32 = 0x8000_0013;
const SYMLINK_RELATIVE: u32 = 1;
/// By which names of the object manager begin.
const OBJECT_PREFIX: &str = "\\??\\";
/// A provider of the overlay filter that keeps a file compressed in a stream of its own; the other kind lies in a WIM.
const PROVIDER_FILE: u32 = 2;
const ALGORITHMS: [&str; 4] = ["XPRESS4K", "LZX", "XPRESS8K", "XPRESS16K"];

/// What a reparse point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reparse {
    /// A symbolic link or a mount point to this path, with `/` between names and without a drive's letter: on a guest's
    /// system volume that is nearly always its own.
    Link(String),
    /// Its data are compressed by the overlay filter, by this algorithm ([MS-FSCC] section 2.1.2.12 and the WOF headers).
    Overlay(&'static str),
    /// Its data are in a store of deduplicated chunks.
    Deduplicated,
    /// Anything else: what it holds itself is its data.
    Other,
}

/// Whether a reparse point of this tag is a link.
pub(crate) fn is_link(tag: u32) -> bool {
    matches!(tag, TAG_MOUNT_POINT | TAG_SYMLINK)
}

/// Reads the value of a reparse point.
pub(crate) fn parse_reparse(value: &[u8]) -> Reparse {
    match le32(value, 0) {
        TAG_MOUNT_POINT => link(value, 16, false),
        TAG_SYMLINK => link(value, 20, le32(value, 16) & SYMLINK_RELATIVE != 0),
        TAG_WOF if le32(value, 12) == PROVIDER_FILE => {
            Reparse::Overlay(ALGORITHMS.get(le32(value, 20) as usize).copied().unwrap_or("an unknown algorithm"))
        }
        TAG_WOF => Reparse::Overlay("a WIM file"),
        TAG_DEDUPLICATED => Reparse::Deduplicated,
        _ => Reparse::Other,
    }
}

/// The substitute name of a link, whose names begin at `names`.
fn link(value: &[u8], names: usize, is_relative: bool) -> Reparse {
    let (at, length) = (usize::from(le16(value, 8)), usize::from(le16(value, 10)));
    let Some(name) = value.get(names + at..names + at + length) else { return Reparse::Other };
    let units: Vec<u16> = (0..name.len() / 2).map(|n| le16(name, n * 2)).collect();
    let name = String::from_utf16_lossy(&units);
    let path = if is_relative { &name } else { name.strip_prefix(OBJECT_PREFIX).unwrap_or(&name) };
    let has_letter = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    let path = if has_letter { &path[2..] } else { path };
    let path = path.replace('\\', "/");
    // What names another volume begins with no separator and is no path from here: it leads nowhere.
    Reparse::Link(if is_relative || path.starts_with('/') { path } else { format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u32, flags: Option<u32>, target: &str) -> Vec<u8> {
        let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut value = [tag.to_le_bytes(), [0; 4]].concat();
        value.extend([0, 0, u8::try_from(name.len()).unwrap(), 0, 0, 0, 0, 0]);
        value.extend(flags.into_iter().flat_map(u32::to_le_bytes));
        [value, name].concat()
    }

    #[test]
    fn links_are_paths_on_their_volume() {
        let link = |tag, flags, target| parse_reparse(&value(tag, flags, target));
        let expected = |path: &str| Reparse::Link(path.into());
        assert_eq!(link(TAG_MOUNT_POINT, None, r"\??\C:\Users"), expected("/Users"));
        assert_eq!(link(TAG_SYMLINK, Some(0), r"\??\C:\ProgramData"), expected("/ProgramData"));
        assert_eq!(link(TAG_SYMLINK, Some(1), r"..\other\file"), expected("../other/file"));
        assert_eq!(link(TAG_SYMLINK, Some(1), r"\rooted"), expected("/rooted"));
        let volume = r"\??\Volume{0a1b2c3d-0000-0000-0000-100000000000}\";
        assert_eq!(link(TAG_MOUNT_POINT, None, volume), expected("/Volume{0a1b2c3d-0000-0000-0000-100000000000}/"));
        assert_eq!(parse_reparse(&value(TAG_SYMLINK, Some(1), "cut")[..22]), Reparse::Other);
    }

    #[test]
    fn compressed_system_files_tell_how() {
        let overlay = |provider: u32, algorithm: u32| {
            let words = [TAG_WOF, 16, 1, provider, 1, algorithm, 0];
            parse_reparse(&words.map(u32::to_le_bytes).concat())
        };
        assert_eq!(overlay(2, 0), Reparse::Overlay("XPRESS4K"));
        assert_eq!(overlay(2, 1), Reparse::Overlay("LZX"));
        assert_eq!(overlay(1, 0), Reparse::Overlay("a WIM file"));
    }
}

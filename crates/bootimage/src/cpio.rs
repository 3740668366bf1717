//! Archives in the "newc" format that the kernel unpacks as initramfs (Linux, `Documentation/driver-api/early-userspace/
//! buffer-format.rst`).
//!
//! An archive is the same for the same content: entries are sorted by path, inode numbers count up, owners and times
//! are zero. Parent folders come into being by themselves. Hard links and files of 4 GiB and more are refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const PATH_LENGTH_MAX: usize = 4096;
const TRAILER: &str = "TRAILER!!!";

/// An initramfs archive being put together.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder with permissions 0755, and its parents.
    ///
    /// # Errors
    /// A path that is absolute, empty, too long, or has `.` or `..` in it; so for all functions that add.
    pub fn add_directory(&mut self, path: &str) -> Result<()> {
        self.add(path, S_IFDIR | 0o755, (0, 0), Content::Bytes(Vec::new()))
    }

    /// Adds a file that holds `bytes`; `permissions` as in 0755.
    ///
    /// # Errors
    /// See [`Archive::add_directory`].
    pub fn add_bytes(&mut self, path: &str, permissions: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.add(path, S_IFREG | permissions & 0o7777, (0, 0), Content::Bytes(bytes.into()))
    }

    /// Adds a copy of the file `from`, read when the archive is written.
    ///
    /// # Errors
    /// See [`Archive::add_directory`].
    pub fn add_file(&mut self, path: &str, permissions: u32, from: &Path) -> Result<()> {
        self.add(path, S_IFREG | permissions & 0o7777, (0, 0), Content::File(from.to_owned()))
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// See [`Archive::add_directory`].
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, S_IFLNK | 0o777, (0, 0), Content::Bytes(target.as_bytes().to_vec()))
    }

    /// Adds a character device node.
    ///
    /// # Errors
    /// See [`Archive::add_directory`].
    pub fn add_character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) -> Result<()> {
        self.add(path, S_IFCHR | permissions & 0o7777, (major, minor), Content::Bytes(Vec::new()))
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: Content) -> Result<()> {
        let usable = path.len() < PATH_LENGTH_MAX
            && !path.contains('\0')
            && path != TRAILER
            && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !usable {
            return Err(Error::new(ErrorKind::InvalidConfiguration, format!("{path:?} is no path for an archive")));
        }
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert_with(|| Entry {
                mode: S_IFDIR | 0o755,
                device: (0, 0),
                content: Content::Bytes(Vec::new()),
            });
        }
        self.entries.insert(path.to_owned(), Entry { mode, device, content });
        Ok(())
    }

    /// Writes the archive and returns its length in bytes, a multiple of 4.
    ///
    /// # Errors
    /// Files that cannot be read or changed their size, and failures of `output`.
    pub fn write_to(&self, output: &mut dyn Write) -> Result<u64> {
        let mut output = Counted { inner: output, written: 0 };
        let failed = |source| Error::io("write the initramfs archive", source);
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            match &entry.content {
                Content::Bytes(bytes) => {
                    let size = file_size(path, bytes.len() as u64)?;
                    write_header(&mut output, inode, entry, size, path).map_err(failed)?;
                    output.write_all(bytes).map_err(failed)?;
                }
                Content::File(from) => {
                    let file = File::open(from).map_err(|e| Error::path("open", from, e))?;
                    let length = file.metadata().map_err(|e| Error::path("read", from, e))?.len();
                    let size = file_size(path, length)?;
                    write_header(&mut output, inode, entry, size, path).map_err(failed)?;
                    let copied =
                        io::copy(&mut file.take(length), &mut output).map_err(|e| Error::path("copy", from, e))?;
                    if copied != length {
                        let what = format!("{} has {copied} bytes and had {length}", from.display());
                        return Err(Error::new(ErrorKind::Io, what));
                    }
                }
            }
            output.pad().map_err(failed)?;
        }
        let end = Entry { mode: 0, device: (0, 0), content: Content::Bytes(Vec::new()) };
        write_header(&mut output, 0, &end, 0, TRAILER).map_err(failed)?;
        output.pad().map_err(failed)?;
        Ok(output.written)
    }

    /// The archive in memory.
    ///
    /// # Errors
    /// See [`Archive::write_to`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes `base` (an initramfs, compressed or not) followed by `archive` to `output`: the kernel unpacks both, in order.
/// The second begins at a multiple of 4 bytes, as the kernel demands.
///
/// # Errors
/// Files that cannot be read or written.
pub fn append_archive(base: &Path, archive: &Archive, output: &Path) -> Result<()> {
    let mut from = File::open(base).map_err(|e| Error::path("open", base, e))?;
    let mut to = File::create(output).map_err(|e| Error::path("create", output, e))?;
    let length = io::copy(&mut from, &mut to).map_err(|e| Error::path("copy", base, e))?;
    let padding = length.next_multiple_of(4);
    to.seek(SeekFrom::Start(padding)).map_err(|e| Error::path("write", output, e))?;
    archive.write_to(&mut io::BufWriter::new(to)).map(drop)
}

fn file_size(path: &str, length: u64) -> Result<u32> {
    u32::try_from(length)
        .map_err(|_| Error::new(ErrorKind::InvalidConfiguration, format!("{path}: too large for an archive")))
}

fn write_header(output: &mut dyn Write, inode: u32, entry: &Entry, size: u32, path: &str) -> io::Result<()> {
    let links = if entry.mode & 0o170_000 == S_IFDIR { 2 } else { 1 };
    let (major, minor) = entry.device;
    let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    // inode, mode, uid, gid, links, mtime, size, device (2), rdev (2), name with its NUL, checksum (unused)
    let fields = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    write!(output, "070701")?;
    for field in fields {
        write!(output, "{field:08x}")?;
    }
    output.write_all(path.as_bytes())?;
    let end = 110 + path.len() + 1;
    output.write_all(&[0; 4][..1 + (end.next_multiple_of(4) - end)])
}

struct Counted<'a> {
    inner: &'a mut dyn Write,
    written: u64,
}

impl Counted<'_> {
    /// Fills up to a multiple of 4.
    fn pad(&mut self) -> io::Result<()> {
        let rest = 3 & self.written.wrapping_neg();
        self.write_all(&[0; 3][..usize::try_from(rest).map_err(io::Error::other)?])
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::new();
        archive.add_bytes("init", 0o755, *b"#!").unwrap();
        archive.add_symlink("bin", "usr/bin").unwrap();
        archive.add_bytes("usr/lib/modules/6.1/a.ko", 0o644, vec![7; 4097]).unwrap();
        archive.add_character_device("dev/console", 0o600, 5, 1).unwrap();
        archive.add_directory("proc").unwrap();
        archive
    }

    fn cpio(arguments: &[&str], input: &[u8]) -> String {
        let child = Command::new("cpio").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("cpio is installed");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn gnu_cpio_lists_what_was_added_with_parents_first() {
        let listed = cpio(&["-t", "--quiet"], &sample().to_bytes().unwrap());
        let expected =
            "bin dev dev/console init proc usr usr/lib usr/lib/modules usr/lib/modules/6.1 usr/lib/modules/6.1/a.ko";
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>().join(" "), expected);
        let long = cpio(&["-tvn", "--quiet"], &sample().to_bytes().unwrap());
        let has = |what: &str| assert!(long.lines().any(|l| l.starts_with(what)), "{what} in\n{long}");
        has("crw-------   1 0        0          5,   1 Jan  1  1970 dev/console");
        has("-rw-r--r--   1 0        0            4097 Jan  1  1970 usr/lib/modules/6.1/a.ko");
        has("-rwxr-xr-x   1 0        0               2 Jan  1  1970 init");
        assert!(long.contains("bin -> usr/bin"), "{long}");
    }

    #[test]
    fn an_archive_does_not_depend_on_the_order_of_additions() {
        let mut other = Archive::new();
        other.add_directory("proc").unwrap();
        other.add_character_device("dev/console", 0o600, 5, 1).unwrap();
        other.add_bytes("usr/lib/modules/6.1/a.ko", 0o644, vec![7; 4097]).unwrap();
        other.add_symlink("bin", "usr/bin").unwrap();
        other.add_bytes("init", 0o755, *b"#!").unwrap();
        assert_eq!(other.to_bytes().unwrap(), sample().to_bytes().unwrap());
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        for path in ["", "/init", "a//b", "../x", "a/./b", "a/..", "a\0b", TRAILER] {
            assert!(Archive::new().add_bytes(path, 0o644, []).is_err(), "{path:?}");
        }
        assert!(Archive::new().add_directory(&"x/".repeat(3000)).is_err());
    }

    #[test]
    fn an_appended_archive_begins_at_a_multiple_of_four() {
        let folder = tempfile::tempdir().unwrap();
        let (base, output) = (folder.path().join("base"), folder.path().join("out"));
        std::fs::write(&base, b"12345").unwrap();
        append_archive(&base, &sample(), &output).unwrap();
        let bytes = std::fs::read(output).unwrap();
        assert_eq!(&bytes[..8], b"12345\0\0\0");
        assert_eq!(bytes[8..], sample().to_bytes().unwrap());
    }

    #[test]
    fn a_file_is_read_when_the_archive_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        let mut archive = Archive::new();
        archive.add_file("etc/x", 0o644, &from).unwrap();
        assert!(archive.to_bytes().is_err());
        std::fs::write(&from, b"content").unwrap();
        let mut same = Archive::new();
        same.add_bytes("etc/x", 0o644, *b"content").unwrap();
        assert_eq!(archive.to_bytes().unwrap(), same.to_bytes().unwrap());
    }
}

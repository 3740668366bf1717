//! cpio archives in the "newc" form (cpio(5)): a header of 110 ASCII characters, the name, the contents, each padded
//! with NULs to a multiple of 4 from the start of the stream.

use std::io::{self, Read};

use crate::{Error, ErrorKind, Result};

/// Longest name, as the kernel's PATH_MAX.
const NAME_MAX: u64 = 4096;

/// NULs between two archives of one stream; a few kilobytes in a real one. A packed stream of nothing else has no end.
const PADDING_MAX: u64 = 1 << 20;

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    Other,
}

/// Header of an entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
    mode: u32,
}

impl Entry {
    pub(super) fn kind(&self) -> Kind {
        match self.mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Folder,
            0o120_000 => Kind::Link,
            _ => Kind::Other,
        }
    }
}

/// Reads entries one by one; contents that are not asked for are passed over.
pub(super) struct Reader<'s> {
    stream: &'s mut dyn Read,
    position: u64,
    limit: u64,
    /// Bytes of the present entry's contents that were not read yet.
    left: u64,
    plain: bool,
    scratch: Vec<u8>,
}

impl<'s> Reader<'s> {
    /// A reader of unpacked bytes, of which there may be `limit`; a `plain` one ends with the first archive.
    pub(super) fn new(stream: &'s mut dyn Read, plain: bool, limit: u64) -> Self {
        Self { stream, position: 0, limit, left: 0, plain, scratch: vec![0; 64 << 10] }
    }

    /// Bytes unpacked so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry of this or a following archive in the stream; `None` at its end.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.next_header()? {
                Some(entry) if entry.name != TRAILER => return Ok(Some(entry)),
                // A plain archive may be followed by a packed one: the caller looks.
                Some(_) if self.plain => return Ok(None),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn next_header(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left)?;
        self.left = 0;
        self.align()?;
        let start = self.position;
        let mut header = [0; 110];
        loop {
            // NULs fill the room between archives, in units of 4.
            let read = self.read_up_to(&mut header[..4])?;
            if read < 4 {
                return Ok(None);
            }
            if header[..4] != [0; 4] {
                break;
            }
            if self.position - start > PADDING_MAX {
                return Err(self.malformed("expected a cpio header, found only NULs"));
            }
        }
        if header[..4] != *b"0707" {
            return Err(self.malformed("expected a cpio header, found other bytes"));
        }
        self.fill(&mut header[4..])?;
        let field = |index: usize| {
            let text = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).ok();
            text.filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|t| u32::from_str_radix(t, 16).ok())
        };
        let wrong = || Error::new(ErrorKind::Malformed, "cpio header: expected hexadecimal numbers");
        let (mode, size) = (field(1).ok_or_else(wrong)?, field(6).ok_or_else(wrong)?);
        let name_length = u64::from(field(11).ok_or_else(wrong)?);
        if name_length == 0 || name_length > NAME_MAX {
            return Err(self.malformed("cpio name of impossible length"));
        }
        let mut name = vec![0; usize::try_from(name_length).unwrap_or(0)];
        self.fill(&mut name)?;
        self.align()?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        self.left = u64::from(size);
        if self.position + self.left > self.limit {
            let what = format!("initramfs unpacks to more than the {} bytes that are left to it", self.limit);
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Some(Entry { name, size: u64::from(size), mode }))
    }

    /// The first `max` bytes of the present entry's contents.
    pub(super) fn contents(&mut self, max: u64) -> Result<Vec<u8>> {
        let length = self.left.min(max);
        let mut bytes = Vec::new();
        let read = Read::take(&mut *self.stream, length).read_to_end(&mut bytes).map_err(stream_error)? as u64;
        self.position += read;
        self.left -= read;
        if read < length {
            return Err(self.malformed("archive ends within a file"));
        }
        Ok(bytes)
    }

    fn align(&mut self) -> Result<()> {
        self.skip(self.position.next_multiple_of(4) - self.position)
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(self.scratch.len());
            let read = self.stream.read(&mut self.scratch[..length]).map_err(stream_error)?;
            if read == 0 {
                // Writers may leave out the padding behind the last archive.
                return if count < 4 { Ok(()) } else { Err(self.malformed("archive ends within a file")) };
            }
            self.position += read as u64;
            count -= read as u64;
        }
        Ok(())
    }

    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.stream.read(&mut buffer[done..]).map_err(stream_error)? {
                0 => break,
                n => done += n,
            }
        }
        self.position += done as u64;
        Ok(done)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        if self.read_up_to(buffer)? < length { Err(self.malformed("archive ends within a header")) } else { Ok(()) }
    }

    fn malformed(&self, what: &str) -> Error {
        Error::new(ErrorKind::Malformed, format!("{what} at {:#x} of the unpacked archive", self.position))
    }
}

fn stream_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::Malformed, format!("unpack initramfs: {error}"))
        }
        _ => Error::io("read initramfs", error),
    }
}

/// Writes an archive in memory.
pub(super) struct Writer {
    bytes: Vec<u8>,
    inode: u32,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), inode: 0 }
    }

    /// A regular file with permission bits `mode`, owned by root.
    pub(super) fn file(&mut self, name: &str, contents: &[u8], mode: u32) {
        self.entry(name, 0o100_000 | mode, 1, contents);
    }

    /// A folder of mode 0755, owned by root.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, 2, &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, links: u32, contents: &[u8]) {
        self.inode += 1;
        // Callers bound files by 64 MiB and names by PATH_MAX.
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The archive with its trailer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry(TRAILER, 0, 1, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_lists_what_is_written() {
        let mut writer = Writer::new();
        writer.folder("usr");
        writer.file("usr/a.ko", b"12345", 0o644);
        let bytes = writer.finish();
        let child = Command::new("cpio").args(["-it", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: no cpio");
            return;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "usr\nusr/a.ko\n");
    }
}

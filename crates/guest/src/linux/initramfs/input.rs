//! A file of the guest as a stream that can be looked ahead in, and that knows its position.

use std::io::{self, BufRead, Read};

use crate::{Error, ErrorKind, FileTree, Result};

/// Bytes read from the file at once.
const CHUNK: usize = 256 << 10;

/// A file of the guest, read forward.
pub(super) struct Input<'t> {
    tree: &'t dyn FileTree,
    path: &'t str,
    /// Position in the file of the first byte in `buffer`.
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'t> Input<'t> {
    /// The file at `path` from byte `start` on.
    pub(super) fn open(tree: &'t dyn FileTree, path: &'t str, start: u64) -> Result<Self> {
        let metadata = tree.metadata(path)?.ok_or_else(|| Error::new(ErrorKind::Missing, "no such file").at(path))?;
        Ok(Self { tree, path, offset: start, end: metadata.size, buffer: Vec::new(), used: 0 })
    }

    /// Position of the next byte in the file.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.used as u64
    }

    /// The next `count` bytes, or less at the end of the file, without taking them.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.used < count {
            self.buffer.drain(..self.used);
            self.offset += self.used as u64;
            self.used = 0;
            let have = self.buffer.len();
            let from = self.offset + have as u64;
            let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
            let length = left.min(CHUNK);
            if length == 0 {
                break;
            }
            self.buffer.resize(have + length, 0);
            let read = self.tree.read_at(self.path, from, &mut self.buffer[have..])?;
            self.buffer.truncate(have + read);
            if read == 0 {
                break;
            }
        }
        let end = self.buffer.len().min(self.used + count);
        Ok(&self.buffer[self.used..end])
    }

    /// Passes over NUL bytes.
    pub(super) fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let available = self.fill_buf()?;
            let zeros = available.iter().take_while(|byte| **byte == 0).count();
            let done = zeros < available.len() || available.is_empty();
            self.consume(zeros);
            if done {
                return Ok(());
            }
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.buffer.len() {
            self.peek(1)?;
        }
        Ok(&self.buffer[self.used..])
    }

    fn consume(&mut self, amount: usize) {
        self.used = (self.used + amount).min(self.buffer.len());
    }
}

//! The compressions that a Linux kernel can unpack (lib/decompress.c), recognised by the same magic bytes.

use std::io::{self, BufRead, Read};

use super::input::Input;
use crate::{Error, ErrorKind, Result};

/// How an archive or a kernel module is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz file format.
    Xz,
    /// The older "LZMA alone" format.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4's legacy frame, the only one that the kernel reads.
    Lz4,
    /// lzop; recognised, not read.
    Lzop,
    /// bzip2.
    Bzip2,
}

/// Start of an LZ4 legacy frame.
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Unpacked length of a block of the LZ4 legacy frame; only the last may be shorter.
const LZ4_BLOCK: usize = 8 << 20;

/// Memory that an xz or lzma stream may ask for.
const XZ_MEMORY_MAX: u64 = 256 << 20;

impl Compression {
    /// By the first bytes (6 of them) of an archive; `None` for what the kernel would not take.
    pub fn detect(head: &[u8]) -> Option<Self> {
        Some(match head {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => Self::None,
            [0x1f, 0x8b | 0x9e, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [a, b, c, d, ..] if [*a, *b, *c, *d] == LZ4_MAGIC => Self::Lz4,
            [0x89, b'L', b'Z', b'O', ..] => Self::Lzop,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => return None,
        })
    }
}

/// Opens the archive at the input's position, lets `visit` read it, and, if it was read to its end, leaves the input
/// behind its last byte.
pub(super) fn open<T>(
    compression: Compression,
    input: &mut Input<'_>,
    visit: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    match compression {
        Compression::None => visit(input),
        Compression::Gzip => visit(&mut flate2::bufread::GzDecoder::new(input)),
        Compression::Xz => visit(&mut liblzma::bufread::XzDecoder::new_stream(input, xz_stream(false)?)),
        Compression::Lzma => visit(&mut liblzma::bufread::XzDecoder::new_stream(input, xz_stream(true)?)),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|e| Error::io("zstd", e))?;
            visit(&mut decoder.single_frame())
        }
        Compression::Lz4 => visit(&mut Lz4 { input, block: Vec::new(), used: 0, ended: false }),
        Compression::Bzip2 => visit(&mut bzip2::bufread::BzDecoder::new(input)),
        Compression::Lzop => Err(Error::new(ErrorKind::Unsupported, "lzop compression cannot be read")),
    }
}

fn xz_stream(lzma: bool) -> Result<liblzma::stream::Stream> {
    let stream = if lzma {
        liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY_MAX)
    } else {
        liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)
    };
    stream.map_err(|e| Error::new(ErrorKind::Unsupported, format!("xz decoder: {e}")))
}

/// Unpacks a kernel module; at most `max` bytes.
pub(crate) fn unpack(bytes: &[u8], max: u64) -> Result<Vec<u8>> {
    let fault = |e: io::Error| Error::new(ErrorKind::Malformed, format!("unpack: {e}"));
    let mut unpacked = Vec::new();
    let mut take = |reader: &mut dyn Read| reader.take(max + 1).read_to_end(&mut unpacked).map_err(fault);
    match Compression::detect(bytes) {
        Some(Compression::Gzip) => take(&mut flate2::bufread::GzDecoder::new(bytes))?,
        Some(Compression::Xz) => take(&mut liblzma::bufread::XzDecoder::new_stream(bytes, xz_stream(false)?))?,
        Some(Compression::Zstd) => take(&mut zstd::stream::read::Decoder::with_buffer(bytes).map_err(fault)?)?,
        _ => take(&mut &bytes[..])?,
    };
    if unpacked.len() as u64 > max {
        return Err(Error::new(ErrorKind::TooLarge, format!("module of more than {max} bytes")));
    }
    Ok(unpacked)
}

/// The LZ4 legacy frame: magic, then blocks of a length (little-endian u32) and as many packed bytes; the magic may
/// come again. It has no end mark: the kernel reads to the end of the initramfs, so nothing of another kind can follow.
struct Lz4<'i, 't> {
    input: &'i mut Input<'t>,
    block: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Lz4<'_, '_> {
    fn next_block(&mut self) -> io::Result<()> {
        loop {
            let head = self.input.peek(4)?;
            let Ok(head) = <[u8; 4]>::try_from(head) else {
                self.ended = true;
                return Ok(());
            };
            if head == LZ4_MAGIC {
                self.input.consume(4);
                continue;
            }
            let length = u32::from_le_bytes(head) as usize;
            // Zero padding ends the frame for kernels since 5.8.
            if length == 0 {
                self.ended = true;
                return Ok(());
            }
            let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
            if length > lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) {
                return Err(wrong(format!("lz4 block of {length} bytes")));
            }
            self.input.consume(4);
            let mut packed = vec![0; length];
            self.input.read_exact(&mut packed)?;
            self.block.resize(LZ4_BLOCK, 0);
            let unpacked = lz4_flex::block::decompress_into(&packed, &mut self.block)
                .map_err(|e| wrong(format!("lz4 block: {e}")))?;
            self.block.truncate(unpacked);
            self.used = 0;
            if unpacked > 0 {
                return Ok(());
            }
        }
    }
}

impl Read for Lz4<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.block.len() && !self.ended {
            self.next_block()?;
        }
        if self.ended {
            return Ok(0);
        }
        let length = buffer.len().min(self.block.len() - self.used);
        buffer[..length].copy_from_slice(&self.block[self.used..self.used + length]);
        self.used += length;
        Ok(length)
    }
}

/// Packs `bytes` as an LZ4 legacy frame.
pub(super) fn lz4_legacy(bytes: &[u8]) -> Vec<u8> {
    let mut packed = LZ4_MAGIC.to_vec();
    for block in bytes.chunks(LZ4_BLOCK) {
        let block = lz4_flex::block::compress(block);
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        packed.extend(length.to_le_bytes());
        packed.extend(block);
    }
    packed
}

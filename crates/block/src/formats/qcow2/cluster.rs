//! L2 entries and compressed clusters (specification, sections "Cluster mapping" and "Extended L2 Entries").
#![forbid(unsafe_code)]
#![allow(clippy::cast_possible_truncation)] // lengths and indexes are bounded by a buffer, a cluster or the L1 table

use flate2::{Decompress, FlushDecompress, Status};
use machine::ByteOffset;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::header::{Compression, Header};
use crate::{Error, Result};

const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// A cluster has 32 subclusters where L2 entries are extended.
const SUBCLUSTERS: u64 = 32;

/// Where a run of guest bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// In the backing file, or zeros without one.
    Backing,
    /// Zeros.
    Zero,
    /// In the image file from here on.
    Data(ByteOffset),
    /// In a compressed cluster: where it begins and how many bytes it may take.
    Compressed { at: ByteOffset, length: usize },
}

/// One L2 entry: `bitmap` is only there in extended entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) descriptor: u64,
    pub(crate) bitmap: u64,
}

/// What `entry` says of the byte `within` its cluster, and for how many bytes from there on at least.
pub(crate) fn map_entry(header: &Header, entry: Entry, within: u64) -> Result<(Mapping, u64)> {
    let cluster = header.cluster_size();
    if entry.descriptor & COMPRESSED != 0 {
        return Ok((compressed(header, entry.descriptor), cluster - within));
    }
    let host = entry.descriptor & OFFSET_MASK;
    if !host.is_multiple_of(cluster) {
        let context = format!("qcow2 L2 entry: expected the start of a cluster, found {host:#x}");
        return Err(Error::malformed(ByteOffset(host), context));
    }
    if header.extended_l2 {
        return map_subcluster(header, host, entry.bitmap, within);
    }
    let rest = cluster - within;
    if entry.descriptor & ZERO != 0 {
        if header.version < 3 {
            return Err(Error::malformed(ByteOffset(host), "qcow2 L2 entry: a zero cluster in an image of version 2"));
        }
        return Ok((Mapping::Zero, rest));
    }
    Ok((if host == 0 { Mapping::Backing } else { Mapping::Data(ByteOffset(host + within)) }, rest))
}

fn map_subcluster(header: &Header, host: u64, bitmap: u64, within: u64) -> Result<(Mapping, u64)> {
    let size = header.cluster_size() / SUBCLUSTERS;
    let state = |index: u64| (bitmap >> index & 1, bitmap >> (index + SUBCLUSTERS) & 1);
    let index = within / size;
    let first = state(index);
    let alike = (index..SUBCLUSTERS).take_while(|&i| state(i) == first).count() as u64;
    let rest = (index + alike) * size - within;
    let mapping = match first {
        (0, 0) => Mapping::Backing,
        (0, _) => Mapping::Zero,
        (_, 0) if host != 0 => Mapping::Data(ByteOffset(host + within)),
        (_, 0) => {
            return Err(Error::malformed(
                ByteOffset(host),
                "qcow2 L2 entry: an allocated subcluster without a cluster",
            ));
        }
        (..) => return Err(Error::malformed(ByteOffset(host), "qcow2 L2 entry: a subcluster both allocated and zero")),
    };
    Ok((mapping, rest))
}

/// Bits 0 to x−1 are the offset, the others up to 61 count the 512-byte sectors behind its first.
fn compressed(header: &Header, descriptor: u64) -> Mapping {
    let x = 62 - (header.cluster_bits - 8);
    let at = descriptor & ((1 << x) - 1);
    let sectors = (descriptor & (COMPRESSED - 1)) >> x; // below 2^13
    let length = (sectors + 1) * 512 - at % 512;
    Mapping::Compressed { at: ByteOffset(at), length: usize::try_from(length).unwrap_or(usize::MAX) }
}

/// Unpacks one cluster; `packed` may have anything behind the compressed data.
pub(crate) fn decompress(
    compression: Compression,
    packed: &[u8],
    cluster: &mut [u8],
) -> std::result::Result<(), String> {
    let count = match compression {
        Compression::Deflate => inflate(packed, cluster)?,
        Compression::Zstd => unpack_zstd(packed, cluster).map_err(|e| e.to_string())?,
    };
    if count < cluster.len() {
        return Err(format!("expected {} bytes, found {count}", cluster.len()));
    }
    Ok(())
}

fn inflate(packed: &[u8], cluster: &mut [u8]) -> std::result::Result<usize, String> {
    let mut state = Decompress::new(false);
    loop {
        let (read, filled) = (state.total_in() as usize, state.total_out() as usize);
        let status = state.decompress(&packed[read..], &mut cluster[filled..], FlushDecompress::Finish);
        let moved = state.total_in() as usize > read || state.total_out() as usize > filled;
        match status {
            Err(e) => return Err(e.to_string()),
            Ok(Status::StreamEnd) => return Ok(state.total_out() as usize),
            _ if state.total_out() as usize == cluster.len() || !moved => return Ok(state.total_out() as usize),
            Ok(_) => {}
        }
    }
}

/// The largest window that a frame may ask for: clusters have at most 2 MiB.
const WINDOW_LOG_MAX: u32 = 23;

fn unpack_zstd(packed: &[u8], cluster: &mut [u8]) -> std::io::Result<usize> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
    let mut input = InBuffer::around(packed);
    let mut output = OutBuffer::around(cluster);
    loop {
        let before = (input.pos(), output.pos());
        decoder.run(&mut input, &mut output)?;
        if (input.pos(), output.pos()) == before || output.pos() == output.capacity() {
            return Ok(output.pos());
        }
    }
}

//! Swap areas (Linux `include/linux/swap.h`): one header page, the rest holds nothing across a restart. A machine that
//! hibernated into it put its memory there, which must not be resumed on other hardware, from disks that were changed since:
//! that is no more taken than other pages, and a fix-up takes the signature away by which a kernel finds it.

use block::{AllocationMap, BlockSource, Everything, Extent, ExtentIter, grains};
use machine::{ByteCount, ByteOffset};

use crate::field::{be32, le32, peek, text, uuid};

/// Page sizes that Linux has had; the signature ends the first page.
const PAGE_SIZES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
/// Signatures of a hibernated system: the kernel's own, uswsusp's and TuxOnIce's.
const HIBERNATED: [&[u8]; 5] =
    [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"];

/// What a kernel finds an ordinary swap area by.
pub const SWAP_SIGNATURE: [u8; 10] = *b"SWAPSPACE2";

/// Where the signature of a hibernated system stands in a swap area that has room for [`SWAP_SIGNATURE`] there, as `mkswap`
/// and a kernel that does not resume put it; `None` for every other content.
pub fn hibernation_signature(source: &dyn BlockSource) -> Option<ByteOffset> {
    let swap = Swap::load(source).filter(|swap| swap.hibernated && swap.modern)?;
    Some(ByteOffset(swap.page_bytes - SWAP_SIGNATURE.len() as u64))
}

/// A swap area, by its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Whether the area holds a hibernated system.
    pub hibernated: bool,
    /// Version 1, the one with geometry, label and UUID.
    pub modern: bool,
    pub label: Option<String>,
    pub uuid: Option<String>,
    /// The header page, in bytes.
    pub page_bytes: u64,
    /// End of the area.
    pub total_bytes: u64,
}

impl Swap {
    /// Reads the header of a swap area; `None` where there is none.
    pub(crate) fn load(source: &dyn BlockSource) -> Option<Self> {
        PAGE_SIZES.iter().find_map(|&page| Self::load_page(source, page))
    }

    fn load_page(source: &dyn BlockSource, page: u64) -> Option<Self> {
        let magic = peek(source, page - 10, 10)?;
        let hibernated = HIBERNATED.iter().any(|sign| magic.starts_with(sign));
        let old = magic == b"SWAP-SPACE";
        if !hibernated && !old && magic != b"SWAPSPACE2" {
            return None;
        }
        let header = peek(source, 1024, 512)?;
        let (version, last_page) = match le32(&header, 0) {
            1 => (1, le32(&header, 4)),
            _ => (be32(&header, 0), be32(&header, 4)),
        };
        let modern = version == 1 && last_page != 0 && !old;
        if !modern && !old {
            return None;
        }
        Some(Self {
            hibernated,
            modern,
            label: if modern { text(&header[28..44]) } else { None },
            uuid: if modern { uuid(&header, 12) } else { None },
            page_bytes: page,
            total_bytes: if modern { (u64::from(last_page) + 1) * page } else { 0 },
        })
    }
}

/// The map of a swap area: its header page, and what lies behind the area.
pub(crate) struct SwapMap {
    page_bytes: u64,
    total_bytes: u64,
}

impl SwapMap {
    /// The map of `swap` in a volume of `volume_bytes`.
    ///
    /// # Errors
    /// The reason why every byte must count as used.
    pub(crate) fn new(swap: &Swap, volume_bytes: u64) -> Result<Self, String> {
        if !swap.modern || swap.total_bytes > volume_bytes || swap.total_bytes < swap.page_bytes {
            return Err("its header does not tell a size that fits its volume".into());
        }
        Ok(Self { page_bytes: swap.page_bytes, total_bytes: swap.total_bytes })
    }

    /// What is not taken: everything behind the header page.
    pub(crate) fn content(&self) -> Extent {
        Extent::between(ByteOffset(self.page_bytes), ByteOffset(self.total_bytes))
    }

    /// Bytes in use within the area.
    pub(crate) fn used(&self) -> ByteCount {
        ByteCount(self.page_bytes)
    }
}

impl AllocationMap for SwapMap {
    fn extents(&self, within: Extent) -> ExtentIter<'_> {
        let head = Extent::first(self.used()).intersection(within);
        let end = ByteOffset(self.total_bytes);
        let tail = Extent::between(end, within.end().max(end)).intersection(within);
        grains(Everything.extents(head).chain(Everything.extents(tail)), ByteCount(1), ByteCount(within.end().0))
    }
}

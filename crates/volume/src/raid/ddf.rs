//! The SNIA Common RAID Disk Data Format (DDF 2.0), as mainboard and controller firmware of several makers write it:
//! recognised by its anchor in the last sector, and not put together.

use block::BlockSource;

use crate::field::{be32, peek};

/// Why its members are refused.
pub(super) const REFUSED: &str = "DDF firmware RAID is recognised, and not put together yet: convert the machine hot, or \
                                  from a system that sees the set as one disk";

const HEADER: u32 = 0xde11_de11;

/// Whether a disk is a member.
pub(super) fn is_member(source: &dyn BlockSource) -> bool {
    // The second is where Adaptec puts it.
    [1, 257].into_iter().any(|blocks: u64| {
        let at = source.size().0.checked_sub(blocks * 512);
        at.and_then(|at| peek(source, at, 512)).is_some_and(|anchor| be32(&anchor, 0) == HEADER)
    })
}

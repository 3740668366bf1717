//! The restart pages of `$LogFile`: whether it holds changes that were not carried out.
//!
//! There are two; the one that was written last counts. A log filled with ones is a new one, as formatting and Linux leave
//! it. The changes themselves are not read.

use super::record::undo_fixups;
use crate::field::{le16, le32, le64};

/// Bytes that are read in search of the two pages.
pub(crate) const RESTART_BYTES: usize = 2 * PAGE_BYTES_MAX;
const PAGE_BYTES_MAX: usize = 64 << 10;
const NO_CLIENT: u16 = 0xffff;
const FLAG_CLEAN: u16 = 2;

/// What is left to do by a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogState {
    /// Nothing.
    Clean,
    /// The volume was in use: what the log says has to be done before anything on the volume can be trusted.
    InUse,
    /// It cannot be read.
    Damaged,
}

/// Reads the first [`RESTART_BYTES`] of a log.
pub(crate) fn parse_log_state(bytes: &[u8]) -> LogState {
    let Some(head) = bytes.get(..512) else { return LogState::Damaged };
    if head.iter().all(|&byte| byte == 0xff) {
        return LogState::Clean;
    }
    let first = restart_area(bytes, 0);
    // A first page that is torn does not tell where the second one is; it lies at one of these.
    let second_at = match le32(bytes, 16) as usize {
        size @ (4096 | 8192 | 16_384 | 32_768 | 65_536) => [size, size],
        _ => [4096, 65_536],
    };
    let second = second_at.iter().find_map(|&at| restart_area(bytes, at));
    match first.into_iter().chain(second).max_by_key(|area| area.0) {
        Some((_, true)) => LogState::Clean,
        Some((_, false)) => LogState::InUse,
        None => LogState::Damaged,
    }
}

/// The sequence number of a restart page, and whether the volume was left in order by it.
fn restart_area(bytes: &[u8], at: usize) -> Option<(u64, bool)> {
    let head = bytes.get(at..)?;
    if !head.starts_with(b"RSTR") && !head.starts_with(b"CHKD") {
        return None;
    }
    let size = le32(head, 16) as usize;
    if !size.is_power_of_two() || !(512..=PAGE_BYTES_MAX).contains(&size) {
        return None;
    }
    let mut page = head.get(..size)?.to_vec();
    undo_fixups(&mut page, at as u64).ok()?;
    let area = page.get(usize::from(le16(&page, 24))..).filter(|area| area.len() >= 16)?;
    Some((le64(area, 0), le16(area, 12) == NO_CLIENT || le16(area, 14) & FLAG_CLEAN != 0))
}

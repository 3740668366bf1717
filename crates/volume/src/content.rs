//! What one volume holds and which of it is used.
//!
//! A filesystem may be smaller than its volume. What lies behind it counts as used: RAID superblocks, GPT copies of
//! nested tables and other systems' backups lie at the end of volumes, and copying a tail costs little, because zeros
//! are not sent. The bytes in use that are reported are the filesystem's own.

use std::sync::Arc;

use block::{AllocationMap, BlockSource, Everything, Extent, Ranges, Scoped};
use machine::{ByteCount, Condition};

use crate::condition;
use crate::exfat::{self, ExfatMap};
use crate::ext::{ExtMap, Superblock};
use crate::fat::{FatMap, Geometry};
use crate::field::peek;
use crate::ntfs::{self, NtfsMap};
use crate::page_file::{LeftOut, left_out};
use crate::probe::{Probe, probe};
use crate::swap::{Swap, SwapMap};

/// A volume's contents.
pub(crate) struct Content {
    pub probe: Probe,
    /// Used bytes, from the volume's start.
    pub map: Arc<dyn AllocationMap>,
    /// Bytes in use by what it holds; the whole size where that is not known.
    pub used: ByteCount,
    /// Why more is used than its own map says.
    pub warnings: Vec<String>,
    /// What its map leaves out because no system needs it after its start: the content of swap, page files and the like.
    pub swap: Vec<Extent>,
    /// Of that, what must read as zeros even where a reader's grains reach over it.
    pub hidden: Vec<Extent>,
    pub conditions: Vec<Condition>,
}

/// Looks at a volume and opens the map of what it holds.
pub(crate) fn load_content(source: &Arc<dyn BlockSource>) -> Content {
    let probe = probe(&**source);
    let whole = |probe: Probe, warnings: Vec<String>| Content {
        probe,
        map: Arc::new(Everything),
        used: source.size(),
        warnings,
        swap: Vec::new(),
        hidden: Vec::new(),
        conditions: Vec::new(),
    };
    if !probe.also.is_empty() {
        let warning = format!("{} is copied whole: signatures of {} too", probe.kind, probe.also.join(", "));
        return whole(probe, vec![warning]);
    }
    let opened = match probe.kind.as_str() {
        "ext2" | "ext3" | "ext4" => ext(source),
        "vfat" => fat(source),
        "exfat" => exfat(source),
        "ntfs" => ntfs(source),
        "ReFS" => Err("its allocation is not read".into()),
        "swap" | "swsuspend" => swap(source),
        "BitLocker" => {
            let conditions = condition::of_bitlocker(&**source);
            return Content { conditions, ..whole(probe, Vec::new()) };
        }
        _ => return whole(probe, Vec::new()),
    };
    let is_ntfs = probe.kind == "ntfs";
    let (content, sure) = match opened {
        Ok(Opened { map, used, warnings, swap }) => {
            let warnings = warnings.into_iter().map(|w| format!("{}: {w}", probe.kind)).collect();
            let swap = swap.into_iter().collect();
            (Content { map, used, swap, ..whole(probe, warnings) }, true)
        }
        Err(reason) => {
            let warning = format!("{} is copied whole: {reason}", probe.kind);
            (whole(probe, vec![warning]), false)
        }
    };
    if is_ntfs { without_page_files(content, source, sure) } else { content }
}

/// Takes off the map what Windows does not need after its start.
fn without_page_files(content: Content, source: &Arc<dyn BlockSource>, sure: bool) -> Content {
    let LeftOut { content: swap, hidden } = left_out(source, sure);
    let removed = Ranges::new(swap.clone());
    let map = match removed.is_empty() {
        true => content.map,
        false => Arc::new(Scoped::new(content.map, Ranges::default(), removed)),
    };
    Content { map, swap, hidden, conditions: condition::of_ntfs(source), ..content }
}

/// A volume that belongs to something larger, which is not read: of it nothing is known but that.
pub(crate) fn load_shared(source: &Arc<dyn BlockSource>, conditions: Vec<Condition>) -> Content {
    let probe = probe(&**source);
    let warnings = conditions.iter().map(|condition| format!("it {condition}, and is copied whole")).collect();
    let map = Arc::new(Everything);
    Content { probe, map, used: source.size(), warnings, swap: Vec::new(), hidden: Vec::new(), conditions }
}

struct Opened {
    map: Arc<dyn AllocationMap>,
    used: ByteCount,
    warnings: Vec<String>,
    swap: Option<Extent>,
}

fn ext(source: &Arc<dyn BlockSource>) -> Result<Opened, String> {
    let superblock = Superblock::load(&**source).ok_or("its superblock cannot be read again")?;
    let (map, findings) = ExtMap::open(Arc::clone(source), superblock)?;
    Ok(Opened { map: Arc::new(map), used: findings.used, warnings: findings.warnings, swap: None })
}

fn fat(source: &Arc<dyn BlockSource>) -> Result<Opened, String> {
    let sector = peek(&**source, 0, 512).ok_or("its boot sector cannot be read again")?;
    let geometry = Geometry::parse(&sector).ok_or("its boot sector changed while it was read")?;
    let own = Extent::first(ByteCount(geometry.total_bytes));
    let map = FatMap::open(Arc::clone(source), geometry)?;
    let used = crate::map::used_bytes(&map, own).map_err(|e| e.to_string())?;
    Ok(Opened { map: Arc::new(map), used, warnings: Vec::new(), swap: None })
}

fn exfat(source: &Arc<dyn BlockSource>) -> Result<Opened, String> {
    let sector = peek(&**source, 0, 512).ok_or("its boot sector cannot be read again")?;
    let boot = exfat::Boot::parse(&sector).ok_or("its boot sector changed while it was read")?;
    let own = Extent::first(ByteCount(boot.heap_end()));
    let map = ExfatMap::open(Arc::clone(source), boot)?;
    let used = crate::map::used_bytes(&map, own).map_err(|e| e.to_string())?;
    Ok(Opened { map: Arc::new(map), used, warnings: Vec::new(), swap: None })
}

fn ntfs(source: &Arc<dyn BlockSource>) -> Result<Opened, String> {
    let boot = ntfs::Boot::load(&**source).ok_or("its boot sector cannot be read again")?;
    let (map, findings) = NtfsMap::open(Arc::clone(source), boot)?;
    Ok(Opened { map: Arc::new(map), used: findings.used, warnings: findings.warnings, swap: None })
}

fn swap(source: &Arc<dyn BlockSource>) -> Result<Opened, String> {
    let swap = Swap::load(&**source).ok_or("its header cannot be read again")?;
    let map = SwapMap::new(&swap, source.size().0)?;
    let (used, content) = (map.used(), map.content());
    Ok(Opened { map: Arc::new(map), used, warnings: Vec::new(), swap: Some(content) })
}

//! Swap files: what lies behind their header page is not taken, where the filesystem tells for sure which blocks that is.

use std::path::Path;
use std::sync::Arc;

use block::{BlockSource, Extent, check_bounds};
use machine::{ByteCount, ByteOffset, SectorSize};

use crate::files::{Files, Run};
use crate::swap::{Swap, SwapMap};

/// Swap files of one guest that are looked at.
pub(crate) const SWAP_FILES_MAX: usize = 16;

/// The content of the swap file at `path`: extents of the filesystem on `source`. `None` where there is no such file.
///
/// # Errors
/// Why all of the file has to be taken.
pub(crate) fn content(source: &Arc<dyn BlockSource>, path: &Path) -> Result<Option<Vec<Extent>>, String> {
    let Ok(files) = Files::open(Arc::clone(source)) else { return Ok(None) };
    let is_file = files.metadata(path).is_ok_and(|found| found.kind == crate::files::FileKind::Regular);
    if !is_file {
        return Ok(None);
    }
    let runs = files.runs(path).map_err(|e| e.to_string())?;
    let runs = runs.ok_or("which blocks it has cannot be told for sure")?;
    let file = File { source, size: files.metadata(path).map_err(|e| e.to_string())?.size, runs: &runs };
    let swap = Swap::load(&file).ok_or("there is no header of a swap area in it")?;
    let area = SwapMap::new(&swap, file.size.0)?.content();
    let inside = runs.iter().filter_map(|run| {
        let part = Extent::new(ByteOffset(run.at), ByteCount(run.length))?.intersection(area);
        let start = ByteOffset(run.start) + (part.start() - ByteOffset(run.at).min(part.start()));
        (!part.is_empty()).then(|| Extent::between(start, start + part.length()))
    });
    Ok(Some(inside.collect()))
}

/// A file's bytes, by its runs; what is in none reads as zeros.
struct File<'a> {
    source: &'a Arc<dyn BlockSource>,
    size: ByteCount,
    runs: &'a [Run],
}

impl BlockSource for File<'_> {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn logical_sector_size(&self) -> SectorSize {
        SectorSize::B512
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> block::Result<()> {
        check_bounds(offset, buffer, self.size)?;
        buffer.fill(0);
        let wanted = Extent::between(offset, offset + buffer.len().into());
        for run in self.runs {
            let Some(extent) = Extent::new(ByteOffset(run.at), ByteCount(run.length)) else { continue };
            let part = extent.intersection(wanted);
            if part.is_empty() {
                continue;
            }
            let place = |at: ByteOffset| (at - offset).to_usize().unwrap_or(usize::MAX);
            let into = &mut buffer[place(part.start())..place(part.end())];
            self.source.read_at(ByteOffset(run.start) + (part.start() - extent.start()), into)?;
        }
        Ok(())
    }
}

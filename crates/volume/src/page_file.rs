//! What Windows keeps on NTFS that is of no use after its start: page files, the hibernation file and the storage of shadow
//! copies. Their content is not taken, the files themselves stay; Windows writes what it needs of them anew.
//!
//! A hibernation file whose first page reads as zeros is none that Windows would go on from: it starts afresh, which it must
//! on other hardware. That page is left out of every volume, the rest only where the volume's state is sure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{BlockSource, Extent};
use machine::{ByteCount, ByteOffset};

use crate::field::peek;
use crate::files::{FileKind, Files};

/// In the root of any volume.
const FILES: [&str; 3] = ["/pagefile.sys", "/hiberfil.sys", "/swapfile.sys"];
const HIBERNATION_FILE: &str = "/hiberfil.sys";
const SHADOW_FOLDER: &str = "/System Volume Information";
/// How names of the shadow copies' storage end.
const SHADOW_STORAGE: &str = "{3808876b-c176-4e48-b7ae-04046e6cc752}";
/// Files of shadow copies that are looked at; Windows keeps at most 512 copies.
const SHADOW_FILES_MAX: usize = 1024;
/// How a file begins that a system goes on from, or began to: "hibr", "rstr".
const HIBERNATED: [&[u8; 4]; 2] = [b"hibr", b"rstr"];
/// The first page of a hibernation file.
const PAGE: u64 = 4096;

/// What is not taken of an NTFS volume.
#[derive(Default)]
pub(crate) struct LeftOut {
    /// Extents of the volume.
    pub content: Vec<Extent>,
    /// Of them, what must read as zeros even where a reader's grains reach over it: the first page of a hibernated system.
    pub hidden: Vec<Extent>,
}

/// What is not taken of the NTFS volume on `source`; of one whose map is not `sure` only what hibernation begins with.
pub(crate) fn left_out(source: &Arc<dyn BlockSource>, sure: bool) -> LeftOut {
    let Ok(files) = Files::open(Arc::clone(source)) else { return LeftOut::default() };
    let mut left_out = LeftOut::default();
    left_out.hidden.extend(hibernation_page(&**source, &files));
    left_out.content.clone_from(&left_out.hidden);
    if sure {
        for path in FILES.iter().map(PathBuf::from).chain(shadow_storage(&files)) {
            let runs = files.runs(&path).ok().flatten().unwrap_or_default();
            left_out.content.extend(runs.iter().filter_map(|r| Extent::new(ByteOffset(r.start), ByteCount(r.length))));
        }
    }
    left_out
}

/// The first page of the file in which a Windows hibernated, or was switched off by Fast Startup, if it would go on from it.
/// It is read where it lies: a system that goes to sleep writes it past its own filesystem.
pub(crate) fn hibernation_page(source: &dyn BlockSource, files: &Files) -> Option<Extent> {
    let runs = files.stored_runs(Path::new(HIBERNATION_FILE)).unwrap_or_default();
    let first = runs.first().filter(|run| run.at == 0)?;
    let head = peek(source, first.start, 4)?.to_ascii_lowercase();
    let is_asleep = HIBERNATED.iter().any(|sign| head == *sign);
    Extent::new(ByteOffset(first.start), ByteCount(first.length.min(PAGE))).filter(|_| is_asleep)
}

fn shadow_storage(files: &Files) -> Vec<PathBuf> {
    let is_storage = |name: &str| {
        let name = name.to_ascii_lowercase();
        // The catalogue, whose name this is alone, is small and stays.
        name.len() > SHADOW_STORAGE.len() && name.ends_with(SHADOW_STORAGE)
    };
    let entries = files.list(SHADOW_FOLDER).unwrap_or_default().into_iter();
    let storage =
        entries.filter(|entry| entry.kind == FileKind::Regular && entry.name.to_str().is_some_and(is_storage));
    storage.map(|entry| Path::new(SHADOW_FOLDER).join(entry.name)).take(SHADOW_FILES_MAX).collect()
}

//! What the changes of a plan take of each filesystem, in whole blocks and in the order in which they are made: new files
//! and folders, what files grow by, and the second copy that a file, and most of all a hive, has while it is replaced.

use std::collections::BTreeSet;

use machine::ByteCount;

use super::{HiveLimit, Usage};
use crate::plan::{Change, Fixup};
use crate::tree::{Room, split};
use crate::{FileTree, Result};

/// What fix-ups that a guest starts without leave to it for its start and its logs: a hundredth of the filesystem, and at
/// most this, in bytes. A boot partition has some 100 MiB and gets a file of a few MiB now and then; 16 MiB hold the
/// logs of Windows' registry and events of one start many times over.
const RESERVE_MAX: u64 = 16 << 20;

/// Bytes counted for a new file or folder beside its contents: a record of NTFS' master file table has 1 KiB, or 4 KiB on
/// disks with such sectors, its index grows by 4 KiB at a time; ext gives a folder a block.
const PER_FILE: u64 = 4096;

/// Bytes by which a hive may grow beyond what it grew by when the plan was tried out: a bin of one page, where a fix-up
/// whose free cells others used is left out.
const HIVE_SLACK: u64 = 4096;

/// Who takes what.
#[derive(Default)]
pub(super) struct Tally {
    filesystems: Vec<Filesystem>,
    /// Folders that are made.
    folders: BTreeSet<String>,
    /// Hives that become too long, and what is to be said of that.
    hives: Vec<(String, String)>,
    /// The first fix-up that does not fit, and what lacks.
    pub(super) misfit: Option<(String, String)>,
}

/// A filesystem while changes are counted.
struct Filesystem {
    place: String,
    room: Room,
    /// Bytes that are taken so far; less than none where files became shorter.
    used: i128,
    /// The most that was taken at a time.
    peak: i128,
    /// What the guest takes later.
    later: i128,
}

/// A file that is made, or replaced in one step.
#[derive(Clone, Copy)]
struct Replacement<'p> {
    path: &'p str,
    /// Bytes that it has; `None` where it is made.
    old: Option<u64>,
    new: u64,
}

/// What the fix-ups do to a hive.
struct Growth<'p> {
    path: &'p str,
    grows: u64,
    /// The last fix-up that changes it.
    last: &'p str,
    /// The last by which it grows.
    last_growing: &'p str,
}

impl Tally {
    /// Counts the files that a fix-up changes, which lie there `copies` times in the end.
    pub(super) fn add_files(&mut self, fixup: &Fixup, copies: u64, tree: &dyn FileTree) -> Result<()> {
        for change in &fixup.changes {
            let at = match change {
                Change::Write { path, size, .. } => {
                    let old = tree.metadata(path)?.map(|found| found.size);
                    self.replace(Replacement { path, old, new: *size }, tree)?
                }
                Change::Append { path, size, added, .. } => self.grow(path, *size, *added, tree)?,
                Change::Remove { .. } | Change::Link { .. } | Change::Patch { .. } | Change::Registry { .. } => None,
            };
            let Some(at) = at else { continue };
            let filesystem = &mut self.filesystems[at];
            if let Change::Write { size, .. } = change {
                filesystem.later += filesystem.blocks(*size) * i128::from(copies.saturating_sub(1));
            }
            if self.misfit.is_none() && filesystem.is_full() {
                self.misfit = Some((fixup.id.clone(), filesystem.lack()));
            }
        }
        Ok(())
    }

    /// Counts the hives that `fixups` change: each is written once, as a new file that takes the old one's place.
    pub(super) fn add_hives(&mut self, fixups: &[&Fixup], limits: &[HiveLimit], tree: &dyn FileTree) -> Result<()> {
        let mut hives: Vec<Growth<'_>> = Vec::new();
        for fixup in fixups {
            for change in &fixup.changes {
                let Change::Registry { path, grows, .. } = change else { continue };
                let known = hives.iter().position(|known| known.path == path);
                let at = known.unwrap_or_else(|| {
                    hives.push(Growth { path, grows: 0, last: &fixup.id, last_growing: &fixup.id });
                    hives.len() - 1
                });
                let growth = &mut hives[at];
                growth.grows = growth.grows.saturating_add(*grows);
                growth.last = &fixup.id;
                if *grows > 0 {
                    growth.last_growing = &fixup.id;
                }
            }
        }
        for Growth { path, grows, last, last_growing } in hives {
            let old = tree.metadata(path)?.map_or(0, |found| found.size);
            let limit = limits.iter().find(|limit| limit.path == path);
            // One that is beyond it already is started by Windows all the same.
            if let Some(limit) = limit.filter(|limit| old <= limit.max.0 && old.saturating_add(grows) > limit.max.0) {
                let size = ByteCount(old.saturating_add(grows));
                let lack = format!("{}: it would have {size}, and {}", path.escape_debug(), limit.why);
                self.misfit.get_or_insert_with(|| (last_growing.to_owned(), lack.clone()));
                self.hives.push((path.to_owned(), lack));
            }
            let new = old.saturating_add(grows).saturating_add(HIVE_SLACK);
            let at = self.replace(Replacement { path, old: Some(old), new }, tree)?;
            if let Some(filesystem) = at.map(|at| &self.filesystems[at]).filter(|filesystem| filesystem.is_full()) {
                self.misfit.get_or_insert_with(|| (last.to_owned(), filesystem.lack()));
            }
        }
        Ok(())
    }

    /// What lacks where this change is made, the reserve counted; `None` where nothing does.
    pub(super) fn lack_at(&self, change: &Change, tree: &dyn FileTree) -> Result<Option<String>> {
        let hive = |grows: &u64| self.hives.iter().find(|(path, _)| path == change.path()).filter(|_| *grows > 0);
        if let Change::Registry { grows, .. } = change
            && let Some((_, lack)) = hive(grows)
        {
            return Ok(Some(lack.clone()));
        }
        if matches!(change, Change::Patch { .. }) {
            return Ok(None);
        }
        let Some(room) = tree.room(change.path())? else { return Ok(None) };
        let found = self.filesystems.iter().find(|filesystem| filesystem.room.filesystem == room.filesystem);
        Ok(found.filter(|filesystem| filesystem.is_tight()).map(Filesystem::lack))
    }

    /// What is taken of each filesystem.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let usage = |filesystem: &Filesystem| Usage {
            place: filesystem.place.clone(),
            needed: ByteCount(u64::try_from(filesystem.peak).unwrap_or(u64::MAX)),
            free: ByteCount(filesystem.room.free),
        };
        self.filesystems.iter().map(usage).collect()
    }

    /// A file is written beside the old one and takes its name.
    fn replace(&mut self, file: Replacement<'_>, tree: &dyn FileTree) -> Result<Option<usize>> {
        let Some(at) = self.filesystem(file.path, tree)? else { return Ok(None) };
        let folders = self.new_folders(file.path, tree)?;
        let filesystem = &mut self.filesystems[at];
        let table = i128::from(PER_FILE) * (folders + i128::from(file.old.is_none()));
        filesystem.take(filesystem.blocks(file.new) + table);
        filesystem.used -= filesystem.blocks(file.old.unwrap_or(0));
        Ok(Some(at))
    }

    fn grow(&mut self, path: &str, size: u64, added: u64, tree: &dyn FileTree) -> Result<Option<usize>> {
        let Some(at) = self.filesystem(path, tree)? else { return Ok(None) };
        let filesystem = &mut self.filesystems[at];
        filesystem.take(filesystem.blocks(size.saturating_add(added)) - filesystem.blocks(size));
        Ok(Some(at))
    }

    /// The filesystem that holds `path`; `None` where nothing is known of it.
    fn filesystem(&mut self, path: &str, tree: &dyn FileTree) -> Result<Option<usize>> {
        let Some(room) = tree.room(path)? else { return Ok(None) };
        if let Some(at) = self.filesystems.iter().position(|known| known.room.filesystem == room.filesystem) {
            return Ok(Some(at));
        }
        // Where it stands: the topmost folder above that is still on it.
        let mut place = path;
        while place != "/" {
            let above = split(place).0;
            if tree.room(above)?.is_none_or(|found| found.filesystem != room.filesystem) {
                break;
            }
            place = above;
        }
        self.filesystems.push(Filesystem { place: place.to_owned(), room, used: 0, peak: 0, later: 0 });
        Ok(Some(self.filesystems.len() - 1))
    }

    /// How many folders are made for `path`, those that were counted left out.
    fn new_folders(&mut self, path: &str, tree: &dyn FileTree) -> Result<i128> {
        let (mut made, mut folder) = (0, split(path).0);
        while folder != "/" && !self.folders.contains(folder) && !tree.exists(folder)? {
            self.folders.insert(folder.to_owned());
            made += 1;
            folder = split(folder).0;
        }
        Ok(made)
    }
}

impl Filesystem {
    fn blocks(&self, bytes: u64) -> i128 {
        let block = i128::from(self.room.block.max(1));
        (i128::from(bytes) + block - 1) / block * block
    }

    fn take(&mut self, bytes: i128) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
    }

    fn is_full(&self) -> bool {
        self.peak > i128::from(self.room.free)
    }

    /// What is to be free, so that the guest has what it takes later, and its reserve.
    fn wanted(&self) -> i128 {
        let reserve = (self.room.size / 100).min(RESERVE_MAX);
        self.peak.max(self.used + self.later + i128::from(reserve))
    }

    fn is_tight(&self) -> bool {
        self.wanted() > i128::from(self.room.free)
    }

    fn lack(&self) -> String {
        let wanted = ByteCount(u64::try_from(self.wanted()).unwrap_or(u64::MAX));
        format!("{}: {wanted} needed, {} free", self.place.escape_debug(), ByteCount(self.room.free))
    }
}

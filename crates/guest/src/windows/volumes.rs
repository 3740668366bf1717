//! Where the filesystems of a Windows guest stand in one tree, since Windows itself has no root above them.

use std::io;

use crate::tree::{Entry, FileTree, Metadata, Room};

/// The volume with Windows on it.
pub const SYSTEM: &str = "/system";
/// The volume from which its boot loader starts: the EFI system partition, or the small active partition of a BIOS disk.
/// Nothing is there where the volume with Windows is that, too.
pub const BOOT: &str = "/boot";

/// A folder of a tree as a tree of its own.
pub struct Subtree<'t> {
    tree: &'t dyn FileTree,
    folder: &'t str,
}

impl<'t> Subtree<'t> {
    /// What is below `folder`, an absolute path without a slash at its end.
    pub fn new(tree: &'t dyn FileTree, folder: &'t str) -> Self {
        Self { tree, folder }
    }

    fn full(&self, path: &str) -> String {
        match path {
            "/" => self.folder.to_owned(),
            path => format!("{}{path}", self.folder),
        }
    }
}

impl FileTree for Subtree<'_> {
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>> {
        self.tree.metadata(&self.full(path))
    }

    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        self.tree.read(&self.full(path), max)
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.tree.read_at(&self.full(path), offset, buffer)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        self.tree.list(&self.full(path))
    }

    fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        self.tree.read_link(&self.full(path))
    }

    fn room(&self, path: &str) -> io::Result<Option<Room>> {
        self.tree.room(&self.full(path))
    }
}

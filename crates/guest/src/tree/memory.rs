//! A file tree in memory: for tests, and for plans tried out before anything is touched.

use std::collections::BTreeMap;
use std::io;

use super::{Entry, FileKind, FileTree, Metadata, Room, WritableTree, components};
use crate::{Error, ErrorKind, Result};

/// Links followed on the way to one file, as in Linux.
const LINKS_MAX: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File { contents: Vec<u8>, mode: u32 },
    Folder,
    Link(String),
}

/// Files, folders and links by absolute path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTree {
    nodes: BTreeMap<String, Node>,
    /// Folders on filesystems that have bounds, and the bytes by which their files may grow.
    room: Vec<(String, u64)>,
}

impl MemoryTree {
    /// A tree with nothing but its root.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same tree with a file of mode 0644 at `path`; the folders above it are made.
    #[must_use]
    pub fn with(mut self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.make_folders(path);
        self.nodes.insert(path.to_owned(), Node::File { contents: contents.as_ref().to_vec(), mode: 0o644 });
        self
    }

    /// The same tree with a symbolic link at `path`.
    #[must_use]
    pub fn with_link(mut self, path: &str, target: &str) -> Self {
        self.make_folders(path);
        self.nodes.insert(path.to_owned(), Node::Link(target.to_owned()));
        self
    }

    /// The same tree on a filesystem that is full once its files have grown by `bytes`.
    #[must_use]
    pub fn with_room(self, bytes: u64) -> Self {
        self.with_room_below("/", bytes)
    }

    /// The same tree with a filesystem of its own below `folder`, which is full once its files have grown by `bytes`.
    #[must_use]
    pub fn with_room_below(mut self, folder: &str, bytes: u64) -> Self {
        self.room.push((folder.trim_end_matches('/').to_owned(), bytes));
        self
    }

    /// The filesystem with bounds that holds the file at `path`.
    fn filesystem(&self, path: &str) -> Option<usize> {
        let holds =
            |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let all = self.room.iter().enumerate().filter(|(_, (folder, _))| holds(folder));
        all.max_by_key(|(_, (folder, _))| folder.len()).map(|(at, _)| at)
    }

    /// Takes room for `new` bytes, and gives back that of the `old` ones after they were written.
    fn grow(&mut self, path: &str, old: usize, new: usize) -> Result<()> {
        if let Some(at) = self.filesystem(path) {
            let left = self.room[at].1.checked_sub(new as u64);
            let full = || Error::io("write", io::ErrorKind::StorageFull).at(path);
            self.room[at].1 = left.ok_or_else(full)? + old as u64;
        }
        Ok(())
    }

    fn make_folders(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1) {
            self.nodes.entry(path[..end].to_owned()).or_insert(Node::Folder);
        }
    }

    /// The path with every link followed; the last one too if `follow`.
    fn resolve(&self, path: &str, follow: bool) -> Result<Option<String>> {
        let mut rest: Vec<String> = components(path)?.into_iter().rev().map(str::to_owned).collect();
        let (mut done, mut links) = (String::new(), 0);
        while let Some(name) = rest.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let here = format!("{done}/{name}");
            match self.nodes.get(&here) {
                Some(Node::Link(target)) if follow || !rest.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    rest.extend(target.split('/').rev().map(str::to_owned));
                }
                _ => done = here,
            }
        }
        Ok(Some(if done.is_empty() { "/".to_owned() } else { done }))
    }

    fn node(&self, path: &str, follow: bool) -> Result<Option<(String, &Node)>> {
        let Some(path) = self.resolve(path, follow)? else { return Ok(None) };
        if path == "/" {
            return Ok(Some((path, &Node::Folder)));
        }
        Ok(self.nodes.get(&path).map(|node| (path, node)))
    }
}

impl FileTree for MemoryTree {
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>> {
        Ok(self.node(path, true)?.map(|(_, node)| match node {
            Node::File { contents, mode } => {
                Metadata { kind: FileKind::File, size: contents.len() as u64, mode: *mode }
            }
            Node::Folder => Metadata { kind: FileKind::Folder, size: 0, mode: 0o755 },
            Node::Link(_) => Metadata { kind: FileKind::Link, size: 0, mode: 0o777 },
        }))
    }

    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        match self.node(path, true)? {
            Some((_, Node::File { contents, .. })) if contents.len() as u64 > max => {
                Err(Error::new(ErrorKind::TooLarge, format!("file of more than {max} bytes")).at(path).into())
            }
            Some((_, Node::File { contents, .. })) => Ok(Some(contents.clone())),
            _ => Ok(None),
        }
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((_, Node::File { contents, .. })) = self.node(path, true)? else {
            return Err(Error::new(ErrorKind::Missing, "no such file").at(path).into());
        };
        let rest = contents.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let Some((folder, Node::Folder)) = self.node(path, true)? else { return Ok(Vec::new()) };
        let prefix = if folder == "/" { folder } else { folder + "/" };
        let below = self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        Ok(below
            .filter_map(|(path, node)| {
                let name = &path[prefix.len()..];
                let kind = match node {
                    Node::File { .. } => FileKind::File,
                    Node::Folder => FileKind::Folder,
                    Node::Link(_) => FileKind::Link,
                };
                (!name.is_empty() && !name.contains('/')).then(|| Entry { name: name.to_owned(), kind })
            })
            .collect())
    }

    fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        Ok(match self.node(path, false)? {
            Some((_, Node::Link(target))) => Some(target.clone()),
            _ => None,
        })
    }

    fn room(&self, path: &str) -> io::Result<Option<Room>> {
        let path = self.resolve(path, true)?.unwrap_or_else(|| path.to_owned());
        Ok(self.filesystem(&path).map(|at| {
            let free = self.room[at].1;
            Room { filesystem: at as u64, free, size: free, block: 1 }
        }))
    }
}

impl WritableTree for MemoryTree {
    fn replace(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<()> {
        let path = self.resolve(path, true)?.ok_or_else(|| Error::new(ErrorKind::Escape, "too many links").at(path))?;
        let (mode, length) = match self.nodes.get(&path) {
            Some(Node::File { mode, contents }) => (*mode, contents.len()),
            Some(Node::Folder) => return Err(Error::new(ErrorKind::Changed, "a folder is in the way").at(path)),
            _ => (mode, 0),
        };
        self.grow(&path, length, contents.len())?;
        self.make_folders(&path);
        self.nodes.insert(path, Node::File { contents: contents.to_vec(), mode });
        Ok(())
    }

    fn append(&mut self, path: &str, size: u64, contents: &[u8]) -> Result<()> {
        let resolved = self.resolve(path, true)?.unwrap_or_default();
        let fits =
            matches!(self.nodes.get(&resolved), Some(Node::File { contents, .. }) if contents.len() as u64 == size);
        if !fits {
            return Err(Error::new(ErrorKind::Changed, format!("expected a file of {size} bytes")).at(path));
        }
        self.grow(path, 0, contents.len())?;
        if let Some(Node::File { contents: old, .. }) = self.nodes.get_mut(&resolved) {
            old.extend_from_slice(contents);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        let Some(resolved) = self.resolve(path, false)? else { return Ok(()) };
        match self.nodes.get(&resolved) {
            Some(Node::Folder) => Err(Error::new(ErrorKind::Changed, "a folder is in the way").at(path)),
            _ => {
                self.nodes.remove(&resolved);
                Ok(())
            }
        }
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.remove(path)?;
        let path = self.resolve(path, false)?.unwrap_or_else(|| path.to_owned());
        self.make_folders(&path);
        self.nodes.insert(path, Node::Link(target.to_owned()));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let tree = MemoryTree::new()
            .with("/usr/lib/os-release", "ID=debian")
            .with_link("/etc/os-release", "../../../../usr/lib/os-release")
            .with_link("/lib", "usr/lib")
            .with_link("/loop", "/loop");
        assert_eq!(tree.text("/etc/os-release").unwrap().unwrap(), "ID=debian");
        assert_eq!(tree.text("/lib/os-release").unwrap().unwrap(), "ID=debian");
        assert_eq!(tree.text("/loop").unwrap(), None);
        assert!(tree.text("/etc/../etc/os-release").is_err());
    }
}

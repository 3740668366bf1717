//! A guest mounted at a folder of this system.
//!
//! Every name is opened beneath the folder with `openat2(2)` and `RESOLVE_IN_ROOT`: the kernel itself follows the
//! guest's links as if the folder were `/`, and refuses magic links of procfs. Devices, pipes and sockets are never opened for I/O:
//! a name is opened with `O_PATH` first and looked at.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::{Entry, FOLDER_ENTRIES_MAX, FileKind, FileTree, Metadata, Room, WritableTree, components, split};
use crate::plan::RawPatch;
use crate::{Error, ErrorKind, Result};

/// Repeats of a lookup that the kernel could not finish because of a rename elsewhere (EAGAIN).
const LOOKUP_TRIES: usize = 16;

/// Links followed from one name, as in Linux.
const LINKS_MAX: usize = 40;

/// A guest's files beneath a folder.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
    /// The disks that its filesystems are on, in the order of their machine.
    disks: Vec<PathBuf>,
}

impl Directory {
    /// The tree whose `/` is the folder at `path` of this system.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io(format!("open {}", path.display()), e))?;
        Ok(Self { root, disks: Vec::new() })
    }

    /// The same tree with the disks that its filesystems are on, in the order of their machine.
    #[must_use]
    pub fn with_disks(self, disks: Vec<PathBuf>) -> Self {
        Self { disks, ..self }
    }

    /// Opens a guest path; `None` where it leads nowhere.
    fn lookup(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
        let names = components(path)?;
        let relative = if names.is_empty() { ".".to_owned() } else { names.join("/") };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..LOOKUP_TRIES {
            match rustix::fs::openat2(&self.root, &relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(fd) => return Ok(Some(fd)),
                Err(Errno::AGAIN) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(Error::io("open", e).at(path)),
            }
        }
        Err(Error::io("open", Errno::AGAIN).at(path))
    }

    /// Opens a regular file for reading (and writing); `None` where there is none.
    fn open_file(&self, path: &str, flags: OFlags) -> Result<Option<(File, Stat)>> {
        // The kind is known before the file is opened for I/O: opening a device or a pipe could do or wait for things.
        let Some(named) = self.lookup(path, OFlags::PATH)? else { return Ok(None) };
        let seen = stat(&named, path)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let Some(fd) = self.lookup(path, flags | OFlags::NONBLOCK)? else { return Ok(None) };
        let opened = stat(&fd, path)?;
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
            return Err(Error::new(ErrorKind::Changed, "file was replaced while it was opened").at(path));
        }
        Ok(Some((File::from(fd), opened)))
    }

    /// The folder that holds the last name of `path`, made with those above it if `make`; and that name.
    fn parent<'p>(&self, path: &'p str, make: bool) -> Result<Option<(OwnedFd, &'p str)>> {
        let (folder, name) = split(path);
        if components(path)?.is_empty() {
            return Err(Error::new(ErrorKind::Escape, "the root itself cannot be changed").at(path));
        }
        if let Some(fd) = self.lookup(folder, OFlags::PATH | OFlags::DIRECTORY)? {
            return Ok(Some((fd, name)));
        }
        if !make {
            return Ok(None);
        }
        let Some((above, last)) = self.parent(folder, true)? else { return Ok(None) };
        match rustix::fs::mkdirat(&above, last, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("make folder", e).at(folder)),
        }
        let fd = self.lookup(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        fd.map(|fd| Some((fd, name))).ok_or_else(|| Error::new(ErrorKind::Changed, "no folder").at(folder))
    }

    /// The guest path that `path` ends at after its last name's links, so that a replaced file is not a replaced link.
    fn follow(&self, path: &str) -> Result<String> {
        let mut end = path.to_owned();
        for _ in 0..LINKS_MAX {
            let Some(target) = self.read_link(&end)? else { break };
            end = join(split(&end).0, &target);
        }
        // `join` takes `..` away by name; where the folder before it was a link, the kernel would go elsewhere.
        let identity = |path: &str, flags: OFlags| {
            let fd = self.lookup(path, OFlags::PATH | flags)?;
            fd.map(|fd| stat(&fd, path).map(|stat| (stat.st_dev, stat.st_ino))).transpose()
        };
        let followed = identity(path, OFlags::empty())?;
        if end == path || followed.is_some() && followed == identity(&end, OFlags::NOFOLLOW)? {
            Ok(end)
        } else {
            Err(Error::new(ErrorKind::Escape, "a link that leads nowhere or cannot be followed safely").at(path))
        }
    }
}

/// `target` of a link in `folder` as an absolute path, `..` taken away by name.
fn join(folder: &str, target: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let start = if target.starts_with('/') { "" } else { folder };
    for name in start.split('/').chain(target.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

fn stat(fd: &impl AsFd, path: &str) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|e| Error::io("stat", e).at(path))
}

fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

impl FileTree for Directory {
    fn metadata(&self, path: &str) -> io::Result<Option<Metadata>> {
        let Some(fd) = self.lookup(path, OFlags::PATH)? else { return Ok(None) };
        let stat = stat(&fd, path)?;
        Ok(Some(Metadata {
            kind: kind(FileType::from_raw_mode(stat.st_mode)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
        }))
    }

    fn read(&self, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((file, stat)) = self.open_file(path, OFlags::RDONLY)? else { return Ok(None) };
        let too_large = || Error::new(ErrorKind::TooLarge, format!("file of more than {max} bytes")).at(path);
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > max {
            return Err(too_large().into());
        }
        let mut contents = Vec::new();
        // One byte more than allowed shows a file that grows or whose size lies.
        io::Read::read_to_end(&mut io::Read::take(&file, max + 1), &mut contents)
            .map_err(|e| Error::io("read", e).at(path))?;
        if contents.len() as u64 > max { Err(too_large().into()) } else { Ok(Some(contents)) }
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((file, _)) = self.open_file(path, OFlags::RDONLY)? else {
            return Err(Error::new(ErrorKind::Missing, "no such file").at(path).into());
        };
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", e).at(path).into()),
            }
        }
        Ok(done)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let Some(fd) = self.lookup(path, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        let fault = |e: Errno| Error::io("list", e).at(path);
        for entry in Dir::read_from(&fd).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let Ok(name) = OsStr::from_bytes(entry.file_name().to_bytes()).to_os_string().into_string() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            if entries.len() == FOLDER_ENTRIES_MAX {
                let many = Error::new(ErrorKind::TooLarge, format!("more than {FOLDER_ENTRIES_MAX} names"));
                return Err(many.at(path).into());
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fault)?;
                    kind(FileType::from_raw_mode(stat.st_mode))
                }
                known => kind(known),
            };
            entries.push(Entry { name, kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        let Some(fd) = self.lookup(path, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(None) };
        if FileType::from_raw_mode(stat(&fd, path)?.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|e| Error::io("read link", e).at(path))?;
        let target = target.into_string();
        Ok(Some(target.map_err(|_| Error::new(ErrorKind::Malformed, "link target is not UTF-8").at(path))?))
    }

    fn room(&self, path: &str) -> io::Result<Option<Room>> {
        let mut nearest = path;
        let fd = loop {
            match self.lookup(nearest, OFlags::PATH)? {
                Some(fd) => break fd,
                None if nearest == "/" => return Ok(None),
                None => nearest = split(nearest).0,
            }
        };
        let found = rustix::fs::fstatvfs(&fd).map_err(|e| Error::io("room of its filesystem", e).at(path))?;
        // The blocks that ext keeps for root are free to whoever repairs the system, as here.
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let block = u32::try_from(found.f_frsize).ok().filter(|block| *block > 0);
        Ok(block.map(|block| Room {
            filesystem: stat(&fd, path).map_or(0, |stat| stat.st_dev),
            free: bytes(found.f_bfree),
            size: bytes(found.f_blocks),
            block,
        }))
    }
}

impl WritableTree for Directory {
    fn replace(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<()> {
        let path = self.follow(path)?;
        let path = path.as_str();
        let fault = |what: &'static str| move |e: Errno| Error::io(what, e).at(path);
        let Some((folder, name)) = self.parent(path, true)? else {
            return Err(Error::new(ErrorKind::Missing, "no folder").at(path));
        };
        let old = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                return Err(Error::new(ErrorKind::Changed, "something other than a file is in the way").at(path));
            }
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(fault("stat")(e)),
        };
        let temporary = format!(".{name}.new");
        remove_quietly(&folder, &temporary);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&folder, &temporary, flags, Mode::from_raw_mode(0o600)).map_err(fault("create"))?;
        let written = (|| {
            let file = File::from(fd);
            file.write_all_at(contents, 0).map_err(|e| Error::io("write", e).at(path))?;
            let mode = old.as_ref().map_or(mode, |old| old.st_mode & 0o7777);
            // FAT has neither owners nor modes: there EPERM is no failure.
            if let Some(old) = &old {
                allow_perm(rustix::fs::fchown(&file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid))))
                    .map_err(fault("set owner"))?;
            }
            allow_perm(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))).map_err(fault("set mode"))?;
            rustix::fs::fdatasync(&file).map_err(fault("sync"))?;
            rustix::fs::renameat(&folder, &temporary, &folder, name).map_err(fault("rename"))
        })();
        if written.is_err() {
            remove_quietly(&folder, &temporary);
        }
        written
    }

    fn append(&mut self, path: &str, size: u64, contents: &[u8]) -> Result<()> {
        let Some((file, stat)) = self.open_file(path, OFlags::RDWR)? else {
            return Err(Error::new(ErrorKind::Missing, "no such file").at(path));
        };
        if u64::try_from(stat.st_size).ok() != Some(size) {
            let found = stat.st_size;
            return Err(Error::new(ErrorKind::Changed, format!("expected {size} bytes, found {found}")).at(path));
        }
        let written = file.write_all_at(contents, size).and_then(|()| file.sync_data());
        written.map_err(|e| {
            // A half-written archive would keep the guest from booting; without it, it is as it was.
            let restored = file.set_len(size);
            let context = if restored.is_ok() { "append" } else { "append, and the old length could not be restored" };
            Error::io(context, e).at(path)
        })
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        let Some((folder, name)) = self.parent(path, false)? else { return Ok(()) };
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", e).at(path)),
        }
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let Some((folder, name)) = self.parent(path, true)? else {
            return Err(Error::new(ErrorKind::Missing, "no folder").at(path));
        };
        let temporary = format!(".{name}.new");
        remove_quietly(&folder, &temporary);
        rustix::fs::symlinkat(target, &folder, &temporary).map_err(|e| Error::io("make link", e).at(path))?;
        rustix::fs::renameat(&folder, &temporary, &folder, name).map_err(|e| {
            remove_quietly(&folder, &temporary);
            Error::io("rename", e).at(path)
        })
    }

    fn patch(&mut self, patch: &RawPatch) -> Result<bool> {
        let node = self.disks.get(patch.disk).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("disk {} is not known beneath these files", patch.disk))
        })?;
        let fault = |what: &'static str| move |error| Error::io(format!("{what} disk {}", patch.disk), error);
        let disk = File::options().read(true).write(true).open(node).map_err(fault("open"))?;
        let mut found = vec![0; patch.old.len()];
        disk.read_exact_at(&mut found, patch.offset.0).map_err(fault("read"))?;
        if !patch.is_due(&found)? {
            return Ok(false);
        }
        disk.write_all_at(&patch.new, patch.offset.0).and_then(|()| disk.sync_data()).map_err(fault("write"))?;
        Ok(true)
    }

    fn sync(&mut self) -> Result<()> {
        // `syncfs` reaches the filesystem of the root only; others may be mounted beneath it.
        rustix::fs::sync();
        Ok(())
    }
}

fn allow_perm(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Removes a temporary name of ours; what is left of an earlier try is no reason to fail.
fn remove_quietly(folder: &OwnedFd, name: &str) {
    let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("etc")).unwrap();
        let tree = Directory::open(folder.path()).unwrap();
        (folder, tree)
    }

    #[test]
    fn the_room_of_a_path_is_that_of_its_filesystem_whether_it_is_there_or_not() {
        let (folder, tree) = folder();
        let room = tree.room("/etc").unwrap().unwrap();
        let told = std::process::Command::new("stat").args(["-f", "-c", "%S %b"]).arg(folder.path()).output().unwrap();
        let told: Vec<u64> =
            String::from_utf8(told.stdout).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
        println!("{room:?}, stat says {told:?}");
        assert_eq!((u64::from(room.block), room.size), (told[0], told[0] * told[1]));
        assert!(room.free > 0 && room.free <= room.size);
        for path in ["/", "/etc/not/there", "/none"] {
            assert_eq!(tree.room(path).unwrap().unwrap().filesystem, room.filesystem, "{path}");
        }
    }

    #[test]
    fn links_do_not_leave_the_tree() {
        let (folder, mut tree) = folder();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&outside, "host").unwrap();
        symlink(outside.path(), folder.path().join("etc/absolute")).unwrap();
        symlink("../../../../../../../etc/hostname", folder.path().join("etc/up")).unwrap();
        std::fs::write(folder.path().join("etc/hostname"), "guest").unwrap();
        assert_eq!(tree.text("/etc/absolute").unwrap(), None);
        assert_eq!(tree.text("/etc/up").unwrap().as_deref(), Some("guest"));
        assert_eq!(tree.replace("/etc/absolute", b"new", 0o644).unwrap_err().kind, ErrorKind::Escape);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "host");
        tree.replace("/etc/up", b"renamed", 0o644).unwrap();
        assert_eq!(tree.text("/etc/hostname").unwrap().as_deref(), Some("renamed"));
        assert!(folder.path().join("etc/up").is_symlink());
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_no_temporary_name() {
        let (folder, mut tree) = folder();
        let path = folder.path().join("etc/crypttab");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        tree.replace("/etc/crypttab", b"new", 0o644).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(tree.list("/etc").unwrap().len(), 1);
        tree.replace("/etc/systemd/network/10.link", b"x", 0o640).unwrap();
        assert_eq!(tree.metadata("/etc/systemd/network/10.link").unwrap().unwrap().mode, 0o640);
    }

    #[test]
    fn a_pipe_is_never_opened() {
        let (folder, tree) = folder();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("etc/fstab"),
            FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert_eq!(tree.read("/etc/fstab", 10).unwrap(), None);
    }

    #[test]
    fn size_bounds_hold_and_append_wants_the_size_it_was_planned_for() {
        let (folder, mut tree) = folder();
        std::fs::write(folder.path().join("etc/a"), "12345").unwrap();
        assert_eq!(tree.read("/etc/a", 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(tree.append("/etc/a", 4, b"x").unwrap_err().kind, ErrorKind::Changed);
        tree.append("/etc/a", 5, b"6").unwrap();
        assert_eq!(tree.text("/etc/a").unwrap().as_deref(), Some("123456"));
    }
}

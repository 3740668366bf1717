//! Looks at the guest on the source's disks, for the agent, which has no eyes for it: nothing is mounted or written.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use block::BlockSource;
use guest::tree::{Entry, FileKind, FileTree, Metadata};
use machine::{ByteCount, Family, FirmwareKind, Guest};
use serde::{Deserialize, Serialize};
use volume::Layout;
use volume::files::Files;

use crate::console::log;
use crate::{Error, Result};

/// What is found out, as the agent reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The operating system.
    pub guest: Guest,
    /// What started this machine just now.
    pub firmware: FirmwareKind,
}

/// Inspects the disks of these paths and this machine's firmware.
pub fn inspect(disks: &[impl AsRef<Path>]) -> Facts {
    let mut sources = Vec::new();
    for disk in disks {
        match block::open_source(disk.as_ref()) {
            Ok(opened) => sources.push(opened.source),
            Err(error) => log(format!("guest: {}: {error}", disk.as_ref().display())),
        }
    }
    let firmware = if Path::new("/sys/firmware/efi").exists() { FirmwareKind::Uefi } else { FirmwareKind::Bios };
    Facts { guest: identify(&sources), firmware }
}

/// Writes facts where the agent looks for them.
///
/// # Errors
/// The file system in memory is full.
pub fn store_facts(facts: &Facts, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))?;
    let json = serde_json::to_vec(facts).map_err(|e| Error::io("guest facts", e))?;
    fs::write(path, json).map_err(|e| Error::path("write", path, e))
}

/// A guest in words: `Debian GNU/Linux 12 (bookworm), host web1`.
pub fn describe(guest: &Guest) -> String {
    let family = match guest.family {
        Family::Linux => "Linux",
        Family::Windows => "Windows",
        Family::Unknown => return "no operating system recognised".into(),
    };
    let product = guest.product.clone().unwrap_or_else(|| family.into());
    match &guest.hostname {
        Some(hostname) => format!("{product}, host {hostname}"),
        None => product,
    }
}

/// The operating system on the disks. A disk that is damaged or foreign hides none on the others.
fn identify(sources: &[Arc<dyn BlockSource>]) -> Guest {
    let sound: Vec<Arc<dyn BlockSource>> = match volume::detect_layout(sources) {
        Ok(layout) => return identify_in(&layout),
        Err(error) => {
            log(format!("guest: {error}; looking at the disks one by one"));
            sources.iter().filter(|source| volume::detect_layout(&[Arc::clone(source)]).is_ok()).cloned().collect()
        }
    };
    volume::detect_layout(&sound).map(|layout| identify_in(&layout)).unwrap_or_default()
}

fn identify_in(layout: &Layout) -> Guest {
    let mut found = Guest::default();
    for filesystem in layout.filesystems() {
        let Ok(files) = Files::open(Arc::clone(&filesystem.source)) else { continue };
        let guest = guest::identify(&FilesTree(files));
        // A host name tells a root filesystem from a mere /usr or a rescue system's partition.
        if guest.family != Family::Unknown && (found.family == Family::Unknown || found.hostname.is_none()) {
            found = guest;
        }
    }
    found
}

/// The files of a filesystem as `guest` reads them.
struct FilesTree(Files);

/// Longest file that is read in parts: programs, of which the first bytes are wanted.
const PARTIAL_MAX: u64 = 64 << 20;

/// The value, `None` where there is nothing or something of another kind.
fn present<T>(path: &str, result: volume::Result<T>) -> guest::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind, volume::ErrorKind::NotFound | volume::ErrorKind::Unsupported) => Ok(None),
        Err(error) => {
            let kind = match error.kind {
                volume::ErrorKind::TooLarge => guest::ErrorKind::TooLarge,
                _ => guest::ErrorKind::Io,
            };
            Err(guest::Error::new(kind, error.to_string()).at(path))
        }
    }
}

fn file_kind(kind: volume::files::FileKind) -> FileKind {
    match kind {
        volume::files::FileKind::Regular => FileKind::File,
        volume::files::FileKind::Directory => FileKind::Folder,
        volume::files::FileKind::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

impl FileTree for FilesTree {
    fn metadata(&self, path: &str) -> guest::Result<Option<Metadata>> {
        let found = present(path, self.0.metadata(path))?;
        Ok(found.map(|m| Metadata { kind: file_kind(m.kind), size: m.size.0, mode: m.mode }))
    }

    fn read(&self, path: &str, max: u64) -> guest::Result<Option<Vec<u8>>> {
        present(path, self.0.read(path, ByteCount(max)))
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> guest::Result<usize> {
        let bytes = self.read(path, PARTIAL_MAX)?.unwrap_or_default();
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let length = buffer.len().min(rest.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn list(&self, path: &str) -> guest::Result<Vec<Entry>> {
        let entries = present(path, self.0.list(path))?.unwrap_or_default();
        let named = entries
            .into_iter()
            .filter_map(|entry| Some(Entry { name: entry.name.into_string().ok()?, kind: file_kind(entry.kind) }));
        Ok(named.take(guest::tree::FOLDER_ENTRIES_MAX).collect())
    }

    fn read_link(&self, path: &str) -> guest::Result<Option<String>> {
        Ok(present(path, self.0.read_link(path))?.and_then(|target| target.into_string().ok()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A disk without partition table that holds an ext4 filesystem with an operating system's name.
    fn disk(folder: &Path) -> std::path::PathBuf {
        let tree = folder.join("tree/etc");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("os-release"), "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap();
        fs::write(tree.join("hostname"), "web1\n").unwrap();
        let image = folder.join("disk.img");
        let mut command = Command::new("/sbin/mkfs.ext4");
        command.args(["-q", "-d"]).arg(folder.join("tree")).arg(&image).arg("16M");
        assert!(command.status().unwrap().success());
        image
    }

    #[test]
    fn the_guest_is_found_beside_a_disk_that_is_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let image = disk(folder.path());
        let empty = folder.path().join("empty.img");
        fs::write(&empty, vec![0xff; 1 << 20]).unwrap();
        let facts = inspect(&[empty, folder.path().join("missing"), image]);
        assert_eq!(describe(&facts.guest), "Debian GNU/Linux 12 (bookworm), host web1");
        let stored = folder.path().join("run/guest.json");
        store_facts(&facts, &stored).unwrap();
        assert_eq!(serde_json::from_slice::<Facts>(&fs::read(stored).unwrap()).unwrap(), facts);
    }

    #[test]
    fn no_disk_is_no_guest() {
        assert_eq!(describe(&inspect(&[] as &[&Path]).guest), "no operating system recognised");
    }
}

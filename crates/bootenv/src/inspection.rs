//! Looks at the guest on the source's disks, for the agent, which has no eyes for it: nothing is mounted or written.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use block::BlockSource;
use machine::{Family, FirmwareKind, Guest};
use serde::{Deserialize, Serialize};
use volume::Layout;
use volume::raid::{self, Candidate, MachineDisk};

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

/// Inspects the disks of these paths and serial numbers, and this machine's firmware. A set of firmware RAID is one disk.
pub fn inspect(disks: &[(impl AsRef<Path>, Option<String>)]) -> Facts {
    let mut candidates = Vec::new();
    for (disk, serial) in disks {
        match block::open_source(disk.as_ref()) {
            Ok(opened) => candidates.push(Candidate { source: opened.source, serial: serial.clone() }),
            Err(error) => log(format!("guest: {}: {error}", disk.as_ref().display())),
        }
    }
    let assembly = raid::assemble(&candidates);
    for refused in &assembly.refused {
        log(format!("disks: {}", refused.reason));
    }
    let source = |disk| match disk {
        MachineDisk::Plain(place) => Arc::clone(&candidates[place].source),
        MachineDisk::Array(array) => {
            log(format!("disks: {} {} of {} disks is one", array.level, array.name, array.members.len()));
            Arc::clone(&array.source)
        }
    };
    let sources: Vec<Arc<dyn BlockSource>> = assembly.disks().into_iter().map(source).collect();
    let firmware = if Path::new("/sys/firmware/efi").exists() { FirmwareKind::Uefi } else { FirmwareKind::Bios };
    Facts { guest: identify(&sources, firmware), firmware }
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
fn identify(sources: &[Arc<dyn BlockSource>], firmware: FirmwareKind) -> Guest {
    let look = |layout: Layout| guest::inspect(layout.file_trees(), firmware).guest;
    let sound: Vec<Arc<dyn BlockSource>> = match volume::detect_layout(sources) {
        Ok(layout) => return look(layout),
        Err(error) => {
            log(format!("guest: {error}; looking at the disks one by one"));
            sources.iter().filter(|source| volume::detect_layout(&[Arc::clone(source)]).is_ok()).cloned().collect()
        }
    };
    volume::detect_layout(&sound).map(look).unwrap_or_default()
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
        let facts = inspect(&[(empty, None), (folder.path().join("missing"), None), (image, None)]);
        assert_eq!(describe(&facts.guest), "Debian GNU/Linux 12 (bookworm), host web1");
        let stored = folder.path().join("run/guest.json");
        store_facts(&facts, &stored).unwrap();
        assert_eq!(serde_json::from_slice::<Facts>(&fs::read(stored).unwrap()).unwrap(), facts);
    }

    #[test]
    fn no_disk_is_no_guest() {
        assert_eq!(describe(&inspect(&[] as &[(&Path, Option<String>)]).guest), "no operating system recognised");
    }
}

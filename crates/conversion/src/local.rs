//! Disks of this machine: image files and block devices, opened read-only, and what lies on them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{BlockSource, Extent, Format, Ranges, Scoped, hide};
use machine::{ByteCount, Cpu, Disk, DiskIdentity, Firmware, MacAddress, Machine, Nic, Smbios};
use serde::{Deserialize, Serialize};
use volume::Layout;

use crate::choices::TakenDisk;
use crate::copy::LocalCopy;
use crate::error::Context;
use crate::{Error, ErrorKind, Result};

/// Disks that a machine may have; more in one command is a mistake.
const DISKS_MAX: usize = 256;

/// The opened disks of one local source.
pub(crate) struct LocalDisks {
    disks: Vec<LocalDisk>,
    layout: Layout,
    found: guest::Found,
}

/// What changes when the file of a disk is replaced or written. A block device has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
}

/// One opened disk.
pub(crate) struct LocalDisk {
    /// As it was named.
    pub path: PathBuf,
    /// Its bytes.
    pub source: Arc<dyn BlockSource>,
    /// What the file is.
    pub format: Format,
}

impl LocalDisks {
    /// Opens `paths` for reading and finds out what lies on them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a missing file, a format that is not read, or a partition table that makes no sense.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() || paths.len() > DISKS_MAX {
            let context = format!("source: expected 1 to {DISKS_MAX} disks, found {}", paths.len());
            return Err(Error::new(ErrorKind::Refused, context));
        }
        let disks = paths.iter().map(|path| open_disk(path)).collect::<Result<Vec<_>>>()?;
        let sources: Vec<_> = disks.iter().map(|disk| Arc::clone(&disk.source)).collect();
        let layout = volume::detect_layout(&sources).context(ErrorKind::Refused, || match paths {
            [path] => path.display().to_string(),
            _ => "disks of the source".into(),
        })?;
        let mut layout = layout;
        let found = guest::inspect(layout.file_trees(), layout.firmware());
        layout.leave_out_swap_files(&found.guest.mounts);
        Ok(Self { disks, layout, found })
    }

    /// The files as they are now. A file that went away has none, as it would had it never been there.
    pub(crate) fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |disk: &LocalDisk| {
            let metadata = disk.path.metadata().ok().filter(|metadata| metadata.is_file())?;
            Some(Stamp { inode: metadata.ino(), modified_s: metadata.mtime(), modified_ns: metadata.mtime_nsec() })
        };
        self.disks.iter().map(stamp).collect()
    }

    /// One disk.
    pub(crate) fn disk(&self, index: usize) -> &LocalDisk {
        &self.disks[index]
    }

    /// Does something with one disk and with what is taken of it.
    pub(crate) fn copy_of<T>(
        &self,
        place: usize,
        taken: &TakenDisk,
        disk: &Disk,
        action: impl FnOnce(LocalCopy<'_>) -> Result<T>,
    ) -> Result<T> {
        let used = match taken.keeps_swap {
            true => self.layout.used_with_swap(taken.index),
            false => self.layout.used(taken.index),
        };
        let used = Scoped::new(used, Ranges::default(), taken.left_out.clone());
        let mut hidden: Vec<Extent> = taken.left_out.iter().collect();
        if !taken.keeps_swap {
            hidden.extend(self.layout.hidden(taken.index).iter());
        }
        let source = hide(Arc::clone(&self.disks[taken.index].source), &Ranges::new(hidden));
        action(LocalCopy { place, disk, source: &source, used: &used })
    }

    /// What lies on the disks.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The machine that these disks came from, as far as they tell; the rest is what a VM usually has.
    pub(crate) fn machine(&self) -> Machine {
        Machine {
            firmware: Firmware { kind: self.layout.firmware(), ..Firmware::default() },
            cpu: Cpu { model: String::new(), sockets: 1, cores_per_socket: 2, threads_per_core: 1 },
            memory: ByteCount::gib(2),
            smbios: Smbios::default(),
            nics: vec![Nic {
                name: String::new(),
                mac: self.mac_address(),
                addresses: Vec::new(),
                driver: None,
                link_up: false,
            }],
            disks: self.described(),
            guest: self.found.guest.clone(),
        }
    }

    /// The operating system found.
    pub(crate) fn found(&self) -> &guest::Found {
        &self.found
    }

    /// The `disks` of the `inspect` contract.
    pub(crate) fn described(&self) -> Vec<Disk> {
        let layouts = self.layout.disks().iter().cloned();
        let describe = |(disk, layout): (&LocalDisk, _)| Disk {
            path: disk.path.display().to_string(),
            format: disk.format.name().to_string(),
            virtual_size: disk.source.size(),
            logical_sector_size: disk.source.logical_sector_size(),
            identity: DiskIdentity::default(),
            layout,
        };
        self.disks.iter().zip(layouts).map(describe).collect()
    }

    /// A stable address in QEMU's range, from what identifies the disks: the same source gets the same every time.
    fn mac_address(&self) -> MacAddress {
        let mut hash = blake3::Hasher::new();
        for layout in self.layout.disks() {
            hash.update(layout.partition_table_id.as_deref().unwrap_or("").as_bytes());
            for volume in &layout.volumes {
                hash.update(volume.uuid.as_deref().unwrap_or("").as_bytes());
            }
        }
        let hash = hash.finalize();
        let [a, b, c] = [0, 1, 2].map(|i| hash.as_bytes()[i]);
        MacAddress([0x52, 0x54, 0x00, a, b, c])
    }
}

fn open_disk(path: &Path) -> Result<LocalDisk> {
    let opened = block::open_source(path).context(ErrorKind::Refused, || format!("source {}", path.display()))?;
    Ok(LocalDisk { path: path.to_path_buf(), source: opened.source, format: opened.format })
}

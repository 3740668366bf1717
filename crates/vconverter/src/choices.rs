//! Which disks and volumes of a source are taken, and how and where each disk is made, as `convert` and `preflight` take it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use conversion::{Allocation, Choices, DiskSetting};

use crate::failure::{Failure, Result};

/// Disks and volumes of one source.
#[derive(Debug, Args)]
pub(crate) struct ChoiceArguments {
    /// Take only this disk (path, serial number, WWN, or position from 0); can be given more than once, with commas, and
    /// say how and where it is made: sdb:full, sdb=/fast/dir
    #[arg(long = "disk", value_name = "DISK[:thin|full][=DIR]", value_delimiter = ',')]
    pub(crate) disks: Vec<NamedDisk>,
    /// Leave this disk out: the VM lacks it, and its system does not wait for it; can be given more than once
    #[arg(long = "skip-disk", value_name = "DISK", value_delimiter = ',')]
    pub(crate) skip_disks: Vec<String>,
    /// Leave out the content of this volume (mount point, partition as sda3 or 0:3, logical volume, label or UUID): it keeps
    /// its place and reads as zeros, and is not mounted; can be given more than once
    #[arg(long = "skip-volume", value_name = "VOLUME")]
    pub(crate) skip_volumes: Vec<String>,
    /// Make the image of a disk in another existing folder, in one with the VM's name; can be given more than once
    #[arg(long = "target", value_name = "DISK=DIR")]
    pub(crate) targets: Vec<NamedDisk>,
    /// Leave out even what the system needs to start
    #[arg(long)]
    pub(crate) allow_unbootable: bool,
}

/// A disk, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedDisk {
    name: String,
    allocation: Option<Allocation>,
    folder: Option<PathBuf>,
}

impl FromStr for NamedDisk {
    type Err = String;

    /// `sdb`, `sdb:full`, `sdb=/fast`, `sdb:thin=/fast`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (disk, folder) = match text.split_once('=') {
            Some((_, "")) => return Err(format!("{text:?}: expected a folder behind =")),
            Some((disk, folder)) => (disk, Some(PathBuf::from(folder))),
            None => (text, None),
        };
        // Only these two: a path by bus has colons, too.
        let (name, allocation) = match disk.rsplit_once(':') {
            Some((name, "thin")) => (name, Some(Allocation::Thin)),
            Some((name, "full")) => (name, Some(Allocation::Full)),
            _ => (disk, None),
        };
        match name.is_empty() {
            true => Err(format!("{text:?}: expected a disk, such as sdb, sdb:full or sdb=/fast")),
            false => Ok(Self { name: name.into(), allocation, folder }),
        }
    }
}

impl NamedDisk {
    fn setting(&self) -> Result<Option<DiskSetting>> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|e| Failure::io(&format!("target folder {}", path.display()), &e))
        };
        let folder = self.folder.as_ref().map(absolute).transpose()?;
        let setting = DiskSetting { disk: self.name.clone(), allocation: self.allocation, folder };
        Ok((setting.allocation.is_some() || setting.folder.is_some()).then_some(setting))
    }
}

/// The disks that are named, and what is said of them.
pub(crate) fn named(disks: &[NamedDisk]) -> Result<(Vec<String>, Vec<DiskSetting>)> {
    let settings: Vec<Option<DiskSetting>> = disks.iter().map(NamedDisk::setting).collect::<Result<_>>()?;
    Ok((disks.iter().map(|disk| disk.name.clone()).collect(), settings.into_iter().flatten().collect()))
}

impl ChoiceArguments {
    /// The disks that are taken, and the rest.
    pub(crate) fn choices(&self) -> Result<(Vec<String>, Choices)> {
        let (disks, mut disk_settings) = named(&self.disks)?;
        disk_settings.extend(named(&self.targets)?.1);
        let (skip_disks, skip_volumes) = (self.skip_disks.clone(), self.skip_volumes.clone());
        Ok((disks, Choices { skip_disks, skip_volumes, disk_settings, allow_unbootable: self.allow_unbootable }))
    }

    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.skip_disks.is_empty() && self.skip_volumes.is_empty() && self.targets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_named_with_its_room_and_its_folder() {
        let named = |text: &str| text.parse::<NamedDisk>().map(|disk| (disk.name, disk.allocation, disk.folder));
        assert_eq!(named("sdb"), Ok(("sdb".into(), None, None)));
        assert_eq!(named("sdb:full"), Ok(("sdb".into(), Some(Allocation::Full), None)));
        assert_eq!(named("/dev/sdb=/fast"), Ok(("/dev/sdb".into(), None, Some("/fast".into()))));
        assert_eq!(named("S1:thin=/a:full=b"), Ok(("S1".into(), Some(Allocation::Thin), Some("/a:full=b".into()))));
        assert_eq!(named("pci-0000:00:1f.2"), Ok(("pci-0000:00:1f.2".into(), None, None)));
        for wrong in ["", ":full", "=x", "sdb=", ":thin=/x"] {
            assert!(named(wrong).is_err(), "{wrong:?}");
        }
    }
}

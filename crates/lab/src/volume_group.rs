//! An LVM physical volume with linear logical volumes, made by lvm2 without device-mapper: the logical volumes are
//! written into the metadata by a restored backup, because `lvcreate` would want to activate them.

use std::path::Path;

use crate::loop_device::LoopDevice;
use crate::tool::Tool;
use crate::{Error, Result};

/// lvm2's default.
pub(crate) const EXTENT: u64 = 4 << 20;

/// A logical volume.
pub(crate) struct LogicalVolume<'a> {
    pub(crate) name: &'a str,
    pub(crate) extents: u64,
}

/// Makes `file` a physical volume of the group `name` that holds `volumes` one behind another. Returns the byte offset
/// of each volume in the file.
pub(crate) fn make(file: &Path, name: &str, host: &str, volumes: &[LogicalVolume<'_>]) -> Result<Vec<u64>> {
    let device = LoopDevice::attach(file)?;
    let config = format!(
        "devices {{ filter=[\"a|^{}$|\",\"r|.*|\"] }} \
         activation {{ udev_sync=0 udev_rules=0 monitoring=0 }} \
         global {{ use_lvmpolld=0 event_activation=0 }} backup {{ backup=0 archive=0 }}",
        device.path().display()
    );
    let lvm = |command: &str| {
        Tool::new("lvm", "lvm2").env("LVM_SUPPRESS_FD_WARNINGS", "1").args([
            command,
            "-q",
            "--config",
            &config,
            "--devicesfile",
            "",
        ])
    };
    lvm("pvcreate").args(["-ff", "-y"]).arg(device.path()).run()?;
    lvm("vgcreate").arg(name).arg(device.path()).run()?;
    let folder = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", e))?;
    let backup = folder.path().join("backup");
    lvm("vgcfgbackup").arg("-f").arg(&backup).arg(name).run()?;
    let text = std::fs::read_to_string(&backup).map_err(|e| Error::file(&backup, e))?;
    let text = with_volumes(&text, name, host, volumes)?;
    std::fs::write(&backup, text).map_err(|e| Error::file(&backup, e))?;
    lvm("vgcfgrestore").arg("-f").arg(&backup).arg(name).run()?;
    let start = lvm("pvs").args(["--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start"]).arg(device.path());
    let start = start.run()?;
    let start: u64 =
        start.trim().parse().map_err(|_| Error::new(format!("pvs: expected pe_start, found {start:?}")))?;
    let mut next = start;
    Ok(volumes
        .iter()
        .map(|volume| {
            let offset = next;
            next += volume.extents * EXTENT;
            offset
        })
        .collect())
}

/// The backup with a section `logical_volumes` at the end of the group's.
fn with_volumes(text: &str, name: &str, host: &str, volumes: &[LogicalVolume<'_>]) -> Result<String> {
    let broken = || Error::new(format!("vgcfgbackup: expected a section {name}"));
    let opening = text.find(&format!("{name} {{")).ok_or_else(broken)? + name.len() + 2;
    let mut depth = 1;
    let closing = text[opening..]
        .char_indices()
        .find_map(|(at, c)| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            (depth == 0).then_some(opening + at)
        })
        .ok_or_else(broken)?;
    let mut section = String::from("logical_volumes {\n");
    let mut first = 0;
    for volume in volumes {
        section += &format!(
            "{} {{\nid = \"{}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\n\
             creation_time = 1700000000\ncreation_host = \"{host}\"\nsegment_count = 1\n\
             segment1 {{\nstart_extent = 0\nextent_count = {}\ntype = \"striped\"\nstripe_count = 1\n\
             stripes = [ \"pv0\", {first} ]\n}}\n}}\n",
            volume.name,
            identifier()?,
            volume.extents
        );
        first += volume.extents;
    }
    Ok(format!("{}{section}}}\n{}", &text[..closing], &text[closing..]))
}

/// A random identifier in LVM's form: 32 characters grouped 6-4-4-4-4-4-6.
fn identifier() -> Result<String> {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ab";
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| Error::new(format!("random bytes: {e}")))?;
    let text: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b % 64)])).collect();
    let groups = [(0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32)];
    Ok(groups.map(|(from, to)| &text[from..to]).join("-"))
}

//! A hibernated system must not be resumed in the VM: its memory expects other hardware, and filesystems as they were
//! before they were changed here. Its swap area gets the signature of an ordinary one, as a kernel that cannot resume and
//! `mkswap` would give it; label and UUID stay. What was open then is lost, as after a power cut.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use block::FileSource;
use guest::linux::parse_fstab;
use guest::{FileTree, Fixup};
use machine::ByteOffset;
use volume::{SWAP_SIGNATURE, hibernation_signature};

use super::devices::Device;
use super::filesystems::open_file_within;
use crate::{Error, Result};

/// Swap files of a guest that are looked at.
const SWAP_FILES_MAX: usize = 16;

/// A swap area with a hibernated system.
pub(super) struct Image {
    /// For people: a device, or a file of the guest.
    name: String,
    place: Place,
    signature: ByteOffset,
}

enum Place {
    Device(PathBuf),
    /// A file below the guest's root.
    File,
}

/// Looks at swap areas on devices, and at the swap files that the guest in `tree` names.
pub(super) fn find(devices: &[Device], tree: Option<&dyn FileTree>) -> Vec<Image> {
    let on_device = |device: &Device| {
        let source = FileSource::open(&device.node, None).ok()?;
        let name = device.logical_volume.clone().unwrap_or_else(|| device.node.display().to_string());
        Some(Image { name, place: Place::Device(device.node.clone()), signature: hibernation_signature(&source)? })
    };
    let mut images: Vec<Image> = devices.iter().filter(|d| d.kind == "swsuspend").filter_map(on_device).collect();
    let table = tree.and_then(|tree| tree.text("/etc/fstab").ok().flatten()).unwrap_or_default();
    let lines = parse_fstab(&table).into_iter().filter(|line| line.kind == "swap");
    let files = lines.map(|line| line.device).filter(|name| name.starts_with('/') && !name.starts_with("/dev/"));
    for name in files.take(SWAP_FILES_MAX) {
        let source = open_file_within(&name, false).ok().and_then(|file| FileSource::from_file(file, None).ok());
        if let Some(signature) = source.and_then(|source| hibernation_signature(&source)) {
            images.push(Image { name, place: Place::File, signature });
        }
    }
    images
}

/// What is planned for them; `None` where there is nothing to be done.
pub(super) fn fixup(images: &[Image]) -> Option<Fixup> {
    let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    (!images.is_empty()).then(|| Fixup {
        id: "hibernation".into(),
        title: format!("the system starts afresh, and not out of its hibernation in {}", names.join(", ")),
        reason: "memory of other hardware, resumed over filesystems that were changed since, would destroy them".into(),
        already_so: false,
        no_room: false,
        changes: Vec::new(),
    })
}

impl Image {
    /// Makes it an ordinary swap area.
    pub(super) fn drop_signature(&self) -> Result<()> {
        let file = match &self.place {
            Place::Device(node) => File::options().write(true).open(node).map_err(|e| Error::path("open", node, e))?,
            Place::File => open_file_within(&self.name, true)?,
        };
        let written = file.write_all_at(&SWAP_SIGNATURE, self.signature.0).and_then(|()| file.sync_all());
        written.map_err(|e| Error::io(format!("write the swap area {}", self.name), e))
    }
}

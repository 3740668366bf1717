//! The fixed map of names to boot files. A request can only name an entry of it, so no path escapes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, ErrorKind, Firmware, Result, loader};
use machine::MacAddress;

/// Longer names are none of ours.
const NAME_LENGTH_MAX: usize = 200;

/// Names and what they stand for.
#[derive(Clone, Debug, Default)]
pub struct BootFiles {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// Folder of the boot image's files for the network, below the one that `vconverter boot-image build` made.
const FOLDER: &str = "netboot";
const FILES: &[&str] =
    &["vmlinuz", "initramfs.img", "undionly.kpxe", "boot.efi", "shimx64.efi", "grubx64.efi", "mmx64.efi"];

impl BootFiles {
    /// The boot image in `folder`, with the loaders' configurations.
    ///
    /// # Errors
    /// [`ErrorKind::NoFiles`] where no firmware at all could be served.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let mut files = Self::default();
        for name in FILES {
            let path = folder.join(FOLDER).join(name);
            if path.is_file() {
                files.insert_file(name, path);
            }
        }
        let iso = folder.join(loader::ISO);
        if iso.is_file() {
            files.insert_file(loader::ISO, iso);
        }
        files.insert(loader::IPXE_SCRIPT, loader::ipxe_script().into_bytes());
        files.insert(loader::GRUB_CONFIGURATION, loader::grub_configuration().into_bytes());
        if Firmware::SERVED.into_iter().all(|firmware| !loader::missing_files(firmware, &files).is_empty()) {
            let context = format!(
                "{}: no boot image for the network: expected the output folder of `vconverter boot-image build`",
                folder.display()
            );
            return Err(Error::new(ErrorKind::NoFiles, context));
        }
        Ok(files)
    }

    /// Takes bytes under a name, in place of what had it.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        self.entries.insert(name.to_owned(), Entry::Bytes(bytes.into()));
    }

    /// Takes a file under a name; it is opened anew for each request.
    fn insert_file(&mut self, name: &str, path: PathBuf) {
        self.entries.insert(name.to_owned(), Entry::File(path));
    }

    /// Whether there is such a name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Opens what a path names; `None` where it names nothing.
    pub(crate) fn open(&self, path: &BootPath) -> Option<io::Result<Content>> {
        Some(match self.entries.get(&path.file)? {
            Entry::Bytes(bytes) => Ok(Content::Bytes(Arc::clone(bytes))),
            Entry::File(path) => Content::open(path),
        })
    }
}

/// A machine as it stands in a path: `525400123456`.
pub(crate) fn plain(mac: MacAddress) -> String {
    mac.0.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn parse_plain(text: &str) -> Option<MacAddress> {
    if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, octets @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(MacAddress(octets))
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootPath {
    /// The machine, where the path carries it.
    pub machine: Option<MacAddress>,
    /// The name in the map.
    pub file: String,
}

/// Reads the path of a request: `m/525400123456/vmlinuz`, or `vmlinuz` of a DHCP server that names this service itself.
pub(crate) fn parse_path(path: &str) -> Option<BootPath> {
    if path.len() > NAME_LENGTH_MAX {
        return None;
    }
    // Shim puts two slashes before GRUB's name.
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (machine, parts) = match parts.as_slice() {
        ["m", machine, rest @ ..] => (Some(parse_plain(machine)?), rest),
        all => (None, all),
    };
    let file = match parts {
        [file] => *file,
        // Signed GRUB looks in its built-in folder.
        ["grub", "grub.cfg"] => loader::GRUB_CONFIGURATION,
        _ => return None,
    };
    Some(BootPath { machine, file: file.to_owned() })
}

/// An open boot file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Bytes(Arc<[u8]>),
    File { file: Arc<File>, size: u64 },
}

impl Content {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self::File { file: Arc::new(file), size: metadata.len() })
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// Fills `buffer` from `offset` on; less is there only when the file was cut since it was opened.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
                let start = usize::try_from(offset).map_err(|_| cut())?;
                let end = start.checked_add(buffer.len()).ok_or_else(cut)?;
                buffer.copy_from_slice(bytes.get(start..end).ok_or_else(cut)?);
                Ok(())
            }
            Self::File { file, .. } => file.read_exact_at(buffer, offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_their_machine() {
        let mac = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let path = |machine, file: &str| Some(BootPath { machine, file: file.into() });
        assert_eq!(parse_path("m/525400123456/vmlinuz"), path(Some(mac), "vmlinuz"));
        assert_eq!(parse_path("/vmlinuz"), path(None, "vmlinuz"));
        assert_eq!(parse_path("/m/525400123456//grubx64.efi"), path(Some(mac), "grubx64.efi"));
        assert_eq!(parse_path("/grub/grub.cfg"), path(None, "grub.cfg"));
        for wrong in
            ["m/x/vmlinuz", "m/52:54:00:12:34:56/vmlinuz", "a/b", "../vmlinuz", "m/525400123456/../../etc/passwd"]
        {
            assert_eq!(parse_path(wrong), None, "{wrong}");
        }
        assert_eq!(parse_path(&"x".repeat(201)), None);
    }

    #[test]
    fn only_what_is_in_the_map_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), b"s").unwrap();
        assert_eq!(BootFiles::from_folder(folder.path()).unwrap_err().kind, ErrorKind::NoFiles);
        std::fs::create_dir(folder.path().join("netboot")).unwrap();
        for (name, bytes) in [("vmlinuz", "kernel"), ("boot.efi", "uki"), ("other", "o")] {
            std::fs::write(folder.path().join("netboot").join(name), bytes).unwrap();
        }
        let files = BootFiles::from_folder(folder.path()).unwrap();
        let open = |name: &str| parse_path(name).and_then(|path| files.open(&path));
        let kernel = open("vmlinuz").unwrap().unwrap();
        let mut buffer = [0; 3];
        kernel.read_at(3, &mut buffer).unwrap();
        assert_eq!((kernel.size(), &buffer), (6, b"nel"));
        assert!(kernel.read_at(4, &mut buffer).is_err());
        for name in ["secret", "../secret", "netboot/boot.efi", "other", "undionly.kpxe", ".", ""] {
            assert!(open(name).is_none(), "{name}");
        }
        let script = open("boot.ipxe").unwrap().unwrap();
        assert!(script.size() > 50 && script.read_at(u64::MAX, &mut buffer).is_err());
    }
}

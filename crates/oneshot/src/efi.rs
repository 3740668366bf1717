//! Variables of UEFI firmware through efivarfs (Linux, `Documentation/filesystems/efivarfs.rst`; UEFI specification 2.10, sections 3.1, 3.3
//! and 8.2): a file each, of four bytes of attributes and the value. Each is written in one write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::IFlags;

use crate::steps::Steps;
use crate::system::{System, read_bounded};
use crate::{Error, ErrorKind, Result};

/// Where efivarfs is mounted.
pub(crate) const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The vendor of all variables that the specification names.
pub(crate) const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The vendor of the variables of the Boot Loader Interface.
pub(crate) const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Non-volatile, for boot services and at run time.
pub(crate) const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];
const NON_VOLATILE: u8 = 1;
/// Largest value that is read.
const VALUE_BYTES_MAX: u64 = 64 << 10;
/// Most variables that are looked at.
const NAMES_MAX: usize = 4096;

/// Variables of the Boot Loader Interface that decide what is started.
const LOADER_NAMES: [&str; 8] = [
    "LoaderEntryOneShot",
    "LoaderEntryDefault",
    "LoaderEntryLastBooted",
    "LoaderEntrySysFail",
    "LoaderConfigTimeout",
    "LoaderConfigTimeoutOneShot",
    "LoaderConfigConsoleMode",
    "LoaderEntryPreferred",
];

/// The firmware's variables.
pub(crate) struct Variables<'a> {
    folder: PathBuf,
    steps: &'a Steps,
}

impl<'a> Variables<'a> {
    pub(crate) fn of(system: &'a System) -> Self {
        Self { folder: system.path(VARIABLES), steps: system.steps() }
    }

    /// A variable's attributes and value, if it is there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match read_bounded(&path, VALUE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::path("read", &path, e)),
        }
    }

    /// A variable's value, if it is there and can be read.
    pub(crate) fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name).ok()??.get(4..).map(<[u8]>::to_vec)
    }

    /// Gives a variable attributes and value, and reads them again: firmware may forget without a word.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        self.steps.tell("set", &path)?;
        let error = |e| Error::path("set", &path, e);
        clear_immutable(&path);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(&path).map_err(error)?;
        file.write_all(bytes).map_err(error)?;
        // In a picture of efivarfs a write does not take the place of all that was there.
        let length = bytes.len() as u64;
        if file.metadata().is_ok_and(|now| now.len() > length) {
            file.set_len(length).map_err(error)?;
        }
        drop(file);
        match self.read(name)? {
            Some(now) if now == bytes => Ok(()),
            now => {
                let found = now.map_or("nothing".to_owned(), |now| format!("{} bytes that differ", now.len()));
                let what = format!("{name}: the firmware did not keep it: expected {length} bytes, found {found}");
                Err(Error::new(ErrorKind::Malformed, what))
            }
        }
    }

    /// Removes a variable; whether it was there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        let path = self.folder.join(name);
        self.steps.tell("remove", &path)?;
        clear_immutable(&path);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::path("remove", &path, e)),
        }
    }

    /// Names of the variables of the boot path, sorted; none on a machine without UEFI.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().take(NAMES_MAX);
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_of_boot_path(name)).collect();
        names.sort_unstable();
        names
    }

    /// Those of them that survive a restart, each with attributes and value.
    pub(crate) fn boot_path(&self) -> Vec<(String, Vec<u8>)> {
        let read = |name: String| Some((self.read(&name).ok()??, name));
        let all = self
            .names()
            .into_iter()
            .filter_map(read)
            .filter(|(bytes, _)| bytes.first().is_some_and(|attributes| attributes & NON_VOLATILE != 0));
        all.map(|(bytes, name)| (name, bytes)).collect()
    }
}

/// efivarfs guards variables that it does not know against a careless `rm`. Where there is no such flag, none has to be cleared.
fn clear_immutable(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags.difference(IFlags::IMMUTABLE));
    }
}

/// A name with its vendor, as efivarfs has it.
pub(crate) fn global(name: &str) -> String {
    format!("{name}-{GLOBAL}")
}

/// A name of the Boot Loader Interface, as efivarfs has it.
pub(crate) fn loader(name: &str) -> String {
    format!("{name}-{LOADER}")
}

/// `Boot001F-8be4df61-…`.
pub(crate) fn boot_entry(number: u16) -> String {
    global(&format!("Boot{number:04X}"))
}

/// The number of a boot entry's variable.
pub(crate) fn entry_number(name: &str) -> Option<u16> {
    let digits = name.strip_suffix(GLOBAL)?.strip_suffix('-')?.strip_prefix("Boot")?;
    let is_number = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_number.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Whether a variable says what is started: nothing else is ever read or written.
pub(crate) fn is_of_boot_path(name: &str) -> bool {
    entry_number(name).is_some()
        || ["BootOrder", "BootNext"].iter().any(|known| name == global(known))
        || LOADER_NAMES.iter().any(|known| name == loader(known))
}

/// The numbers of `BootOrder`, `BootNext` or `BootCurrent`.
pub(crate) fn numbers(value: &[u8]) -> Vec<u16> {
    value.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Text as the firmware keeps it, with its end.
pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Text of the firmware, up to its end.
pub(crate) fn text(value: &[u8]) -> String {
    let words: Vec<u16> = numbers(value).into_iter().take_while(|word| *word != 0).collect();
    String::from_utf16_lossy(&words)
}

/// A partition, as a device path names it (section 10.3.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HardDrive {
    /// From 1.
    pub(crate) number: u32,
    /// First block of the disk, in its logical blocks.
    pub(crate) start: u64,
    /// Length in the same.
    pub(crate) blocks: u64,
    /// The partition's GUID as it is on the disk, or the disk's MBR signature in the first four bytes.
    pub(crate) signature: [u8; 16],
    /// Whether the disk has a GPT; else it has an MBR.
    pub(crate) is_gpt: bool,
}

/// Makes an `EFI_LOAD_OPTION` (section 3.1.3), active, for a file of a partition; `file` has backslashes.
pub(crate) fn load_option(description: &str, drive: &HardDrive, file: &str) -> Vec<u8> {
    const ACTIVE: u32 = 1;
    const MEDIA: u8 = 4;
    const HARD_DRIVE: u8 = 1;
    const FILE_PATH: u8 = 4;
    const END: [u8; 4] = [0x7f, 0xff, 4, 0];
    let format = if drive.is_gpt { 2 } else { 1 };
    let mut partition = drive.number.to_le_bytes().to_vec();
    partition.extend(drive.start.to_le_bytes());
    partition.extend(drive.blocks.to_le_bytes());
    partition.extend(drive.signature);
    partition.extend([format, format]);
    let mut path = node(MEDIA, HARD_DRIVE, &partition);
    path.extend(node(MEDIA, FILE_PATH, &utf16(file)));
    path.extend(END);
    let mut option = ACTIVE.to_le_bytes().to_vec();
    option.extend(u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend(utf16(description));
    option.extend(path);
    option
}

fn node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + data.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[kind, subtype, length[0], length[1]], data].concat()
}

/// Signature of the partition that a boot entry's file is on.
pub(crate) fn drive_signature(option: &[u8]) -> Option<[u8; 16]> {
    const HARD_DRIVE: [u8; 4] = [4, 1, 42, 0];
    let description = option.get(6..)?.chunks_exact(2).position(|word| word == [0, 0])?;
    let path = option.get(6 + 2 * description + 2..)?;
    // Firmware begins the paths of its own entries with the disk's controller.
    let at = path.windows(4).position(|node| node == HARD_DRIVE)?;
    path.get(at + 24..at + 40)?.try_into().ok()
}

/// A boot entry's description and the last file path of its device path.
pub(crate) fn parse_load_option(option: &[u8]) -> Option<(String, Option<String>)> {
    let path_length = usize::from(u16::from_le_bytes([*option.get(4)?, *option.get(5)?]));
    let words = option.get(6..)?.chunks_exact(2);
    let end = words.clone().position(|word| word == [0, 0])?;
    let description = text(option.get(6..6 + 2 * end)?);
    let mut path = option.get(6 + 2 * end + 2..)?;
    path = &path[..path_length.min(path.len())];
    let mut file = None;
    while let Some((&[kind, subtype, low, high], _)) = path.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let Some(data) = path.get(4..length).filter(|_| kind & 0x7f != 0x7f) else { break };
        if (kind, subtype) == (4, 4) {
            file = Some(text(data));
        }
        path = &path[length..];
    }
    Some((description, file))
}

/// For the fuzzer.
pub fn fuzz_load_option(bytes: &[u8]) {
    let _ = (parse_load_option(bytes), drive_signature(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field by field: attributes, length of the path, description; hard drive, file path, end.
    #[test]
    fn an_entry_has_the_bytes_of_the_specification() {
        let drive = HardDrive {
            number: 15,
            start: 0x2800,
            blocks: 0x3e000,
            signature: *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b",
            is_gpt: true,
        };
        let bytes = load_option("x", &drive, "\\a");
        let expected = "01000000 3800 78000000 \
            0401 2a00 0f000000 0028000000000000 00e0030000000000 28732ac11ff8d211ba4b00a0c93ec93b 02 02 \
            0404 0a00 5c0061000000 7fff0400";
        assert_eq!(crate::record::to_hex(&bytes), expected.replace(' ', ""));
        assert_eq!(drive_signature(&bytes), Some(drive.signature));
        assert_eq!(parse_load_option(&bytes), Some(("x".to_owned(), Some("\\a".to_owned()))));
    }

    #[test]
    fn only_variables_of_the_boot_path_are_ours_to_touch() {
        for name in ["Boot0001", "Boot00AF", "BootOrder", "BootNext"] {
            assert!(is_of_boot_path(&global(name)), "{name}");
        }
        assert!(is_of_boot_path(&loader("LoaderEntryOneShot")));
        for name in ["PK", "db", "SecureBoot", "Boot0001/../../x", "BootOrderDefault", "../BootNext"] {
            assert!(!is_of_boot_path(&global(name)), "{name}");
        }
        assert!(!is_of_boot_path("LoaderEntryOneShot-8be4df61-93ca-11d2-aa0d-00e098032b8c"));
    }

    #[test]
    fn a_shorter_value_takes_the_place_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let system = System::with_root(folder.path(), folder.path().join("state"));
        fs::create_dir_all(system.path(VARIABLES)).unwrap();
        let variables = Variables::of(&system);
        let name = global("BootOrder");
        variables.write(&name, b"\x07\0\0\0\x01\0\x02\0").unwrap();
        variables.write(&name, b"\x07\0\0\0\x02\0").unwrap();
        assert_eq!(variables.value(&name).map(|value| numbers(&value)), Some(vec![2]));
        assert_eq!(variables.names(), std::slice::from_ref(&name));
        assert!(variables.remove(&name).unwrap());
        assert!(!variables.remove(&name).unwrap());
        assert_eq!(variables.read(&name).unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes: Vec<u8>) {
            fuzz_load_option(&bytes);
        }
    }
}

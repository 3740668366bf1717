//! The firmware's own view: BIOS or UEFI, Secure Boot, boot entries (UEFI specification 2.10, sections 3.1.3, 3.3 and
//! 10.3), from `efivarfs`.

use std::path::Path;

use machine::{BootVariable, Firmware, FirmwareKind};

use super::{list, read_file};

const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The vendor of all variables that the specification names.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Boot entries that are looked at.
const ENTRIES_MAX: usize = 256;
/// Longest description in characters.
const DESCRIPTION_MAX: usize = 256;
/// Longest loader path in characters.
const LOADER_MAX: usize = 1024;

/// A boot entry's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// LOAD_OPTION_ACTIVE.
    pub active: bool,
    /// As the firmware shows it.
    pub description: String,
    /// File path of its device path, if it has one.
    pub loader: Option<String>,
    /// Whether its device path has a URI: HTTP boot (UEFI specification 2.10, section 10.3.4.23).
    pub is_by_uri: bool,
}

/// What started this kernel.
pub(super) fn running_firmware() -> FirmwareKind {
    if Path::new("/sys/firmware/efi").exists() { FirmwareKind::Uefi } else { FirmwareKind::Bios }
}

/// The firmware, of the kind that the machine's disks are made for.
pub(super) fn load_firmware(kind: FirmwareKind) -> Firmware {
    let secure_boot = variable("SecureBoot").and_then(|value| value.first().map(|on| *on == 1));
    Firmware { kind, secure_boot, boot_variables: load_entries() }
}

/// Whether the firmware fetched by HTTP what it started: the ISO is a RAM disk then.
pub(super) fn is_started_by_http() -> bool {
    let option = words("BootCurrent").first().and_then(|number| variable(&format!("Boot{number:04X}")));
    option.and_then(|bytes| parse_load_option(&bytes)).is_some_and(|option| option.is_by_uri)
}

/// The value of a global variable that is a list of numbers.
fn words(name: &str) -> Vec<u16> {
    let bytes = variable(name).unwrap_or_default();
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn load_entries() -> Vec<BootVariable> {
    let current = words("BootCurrent").first().copied();
    let order = words("BootOrder");
    let mut numbers: Vec<u16> = list(VARIABLES).iter().filter_map(|path| entry_number(path)).collect();
    // By the order of trial, then by number.
    numbers.sort_by_key(|number| (order.iter().position(|o| o == number).unwrap_or(usize::MAX), *number));
    let entries = numbers.into_iter().take(ENTRIES_MAX).filter_map(|number| {
        let LoadOption { active, description, loader, .. } =
            parse_load_option(&variable(&format!("Boot{number:04X}"))?)?;
        Some(BootVariable { number, description, loader, active, current: current == Some(number) })
    });
    entries.collect()
}

/// `Boot0001-8be4df61-…` is 1.
fn entry_number(path: &Path) -> Option<u16> {
    let digits = path.file_name()?.to_str()?.strip_suffix(GLOBAL)?.strip_suffix('-')?.strip_prefix("Boot")?;
    let is_number = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_number.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// The value of a global variable; its file begins with four bytes of attributes.
fn variable(name: &str) -> Option<Vec<u8>> {
    let bytes = read_file(Path::new(VARIABLES).join(format!("{name}-{GLOBAL}")))?;
    Some(bytes.get(4..)?.to_vec())
}

/// Parses an `EFI_LOAD_OPTION`: attributes (u32), length of the device path (u16), description (UTF-16, ends with zero),
/// device path. `None` where even the description is cut off.
pub fn parse_load_option(bytes: &[u8]) -> Option<LoadOption> {
    let (attributes, rest) = bytes.split_first_chunk::<4>()?;
    let (path_length, rest) = rest.split_first_chunk::<2>()?;
    let (description, used) = parse_utf16(rest, DESCRIPTION_MAX)?;
    let path_length = usize::from(u16::from_le_bytes(*path_length));
    let path = rest.get(used..)?;
    let path = path.get(..path_length.min(path.len()))?;
    let (loader, is_by_uri) = parse_device_path(path);
    Some(LoadOption { active: u32::from_le_bytes(*attributes) & 1 == 1, description, loader, is_by_uri })
}

/// The joined file path nodes (type 4, subtype 4) of the first device path, and whether it has a URI (type 3, subtype
/// 24). Each node is type (u8), subtype (u8), length of the whole node (u16), data; it ends with type 0x7f.
fn parse_device_path(mut path: &[u8]) -> (Option<String>, bool) {
    const MESSAGING: u8 = 3;
    const URI: u8 = 24;
    const MEDIA: u8 = 4;
    const FILE_PATH: u8 = 4;
    const END: u8 = 0x7f;
    let mut found = String::new();
    let mut is_by_uri = false;
    while let Some((&[kind, subtype, low, high], _)) = path.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        // A node shorter than its header would hold us here for ever.
        let node = path.get(4..length).filter(|_| kind & 0x7f != END);
        let Some(node) = node else { break };
        is_by_uri |= (kind & 0x7f, subtype) == (MESSAGING, URI);
        if (kind & 0x7f, subtype) == (MEDIA, FILE_PATH) && found.len() < LOADER_MAX {
            let mut with_end = node.to_vec();
            with_end.extend([0, 0]);
            let part = parse_utf16(&with_end, LOADER_MAX).map(|(part, _)| part).unwrap_or_default();
            if found.ends_with('\\') && part.starts_with('\\') {
                found.pop();
            }
            found.push_str(&part);
        }
        path = &path[length..];
    }
    ((!found.is_empty()).then_some(found), is_by_uri)
}

/// Text up to its zero, at most `characters_max` of it, and the bytes that it takes with the zero; control characters
/// are left out, because it goes to screens.
fn parse_utf16(bytes: &[u8], characters_max: usize) -> Option<(String, usize)> {
    let words: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|w| *w != 0).collect();
    let used = (words.len() + 1) * 2;
    let text = char::decode_utf16(words).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    let text = text.filter(|c| !c.is_control()).take(characters_max).collect();
    (used <= bytes.len()).then_some((text, used))
}

/// For the fuzzer.
pub fn fuzz_load_option(bytes: &[u8]) {
    if let Some(option) = parse_load_option(bytes) {
        assert!(option.description.chars().count() <= DESCRIPTION_MAX);
        assert!(option.loader.is_none_or(|loader| loader.chars().count() <= 2 * LOADER_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    fn node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + data.len()).unwrap().to_le_bytes();
        [&[kind, subtype, length[0], length[1]], data].concat()
    }

    fn option(path: &[u8]) -> Vec<u8> {
        let length = u16::try_from(path.len()).unwrap().to_le_bytes();
        [&[1, 0, 0, 0][..], &length, &utf16("debian"), path].concat()
    }

    #[test]
    fn the_loader_of_a_hard_drive_entry_is_found() {
        let path = [
            node(4, 1, &[0; 38]), // hard drive
            node(4, 4, &utf16("\\EFI\\debian\\shimx64.efi")),
            node(0x7f, 0xff, &[]),
        ]
        .concat();
        let mut bytes = option(&path);
        bytes.extend(b"optional data");
        let found = parse_load_option(&bytes).unwrap();
        assert_eq!((found.description.as_str(), found.active), ("debian", true));
        assert_eq!(found.loader.as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
    }

    #[test]
    fn an_entry_without_file_has_no_loader() {
        let path = [node(2, 1, &[0; 8]), node(0x7f, 0xff, &[])].concat();
        assert_eq!(parse_load_option(&option(&path)).unwrap().loader, None);
    }

    #[test]
    fn http_boot_is_known_by_the_uri_of_its_entry() {
        let http = [node(3, 11, &[0; 33]), node(3, 12, &[0; 23]), node(3, 24, b""), node(0x7f, 0xff, &[])].concat();
        assert!(parse_load_option(&option(&http)).unwrap().is_by_uri);
        let pxe = [node(3, 11, &[0; 33]), node(3, 12, &[0; 23]), node(0x7f, 0xff, &[]), node(3, 24, b"")].concat();
        assert!(!parse_load_option(&option(&pxe)).unwrap().is_by_uri, "what follows the end is another path");
    }

    #[test]
    fn nodes_that_lie_about_their_length_end_the_path() {
        for length in [0_u16, 3, 5000] {
            let mut path = node(4, 4, &utf16("x"));
            path[2..4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(parse_load_option(&option(&path)).unwrap().loader, None, "{length}");
        }
        assert_eq!(parse_load_option(&[1, 0, 0, 0, 0, 0, b'x', 0]), None, "description without end");
    }

    #[test]
    fn entries_are_told_from_other_variables() {
        let number = |name: &str| entry_number(Path::new(name));
        assert_eq!(number(&format!("Boot00AF-{GLOBAL}")), Some(0xaf));
        for other in ["BootOrder", "BootNext", "Boot+001", "Boot00001"] {
            assert_eq!(number(&format!("{other}-{GLOBAL}")), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes: Vec<u8>) {
            fuzz_load_option(&bytes);
        }
    }
}

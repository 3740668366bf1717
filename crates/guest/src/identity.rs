//! What a guest is: family, product, version, architecture, host name, as its own files tell.
//!
//! Of a Windows its hives tell (`windows::inspection`). Linux follows os-release(5) and hostname(5); `debian_version`
//! stands in where os-release is absent. Contents are hostile: a name that reaches an operator's screen or a VM
//! definition is short, printable and made of expected characters.

use machine::{Family, FirmwareKind, Guest, Mount, Note};

use crate::linux::{parse_fstab, shell};
use crate::windows::inspection::{Identity, Inspection, Surroundings};
use crate::windows::path::Paths;
use crate::windows::{Architecture, Windows};
use crate::{FileTree, elf};

/// Longest product name or version taken over, in characters.
const NAME_MAX: usize = 128;
/// Lines of the guest's table of filesystems that are told, and the longest field of one, in bytes.
const MOUNTS_MAX: usize = 256;
const FIELD_MAX: usize = 1024;

/// Notes of a guest that are told, and the longest text of one, in characters.
const NOTES_MAX: usize = 64;
const NOTE_MAX: usize = 1024;

/// A guest, and all that is known of it where it is a Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its identity, and what matters for a conversion.
    pub guest: Guest,
    /// All facts.
    pub windows: Option<Inspection>,
}

/// Reads the identity of the guest in `tree`. What cannot be told is `None`; an unknown system is no error.
pub fn identify(tree: &dyn FileTree) -> Guest {
    if is_windows(tree) {
        return windows(tree, None).guest;
    }
    let release = release(tree);
    let linux = release.is_some()
        || ["/etc/debian_version", "/etc/redhat-release", "/etc/fstab", "/lib/modules"]
            .iter()
            .any(|path| tree.exists(path).unwrap_or(false));
    if !linux {
        return Guest::default();
    }
    let (product, version) = release.unwrap_or_default();
    let (arch, hostname, mounts) = (arch(tree), hostname(tree), mounts(tree));
    Guest { family: Family::Linux, product, version, arch, hostname, mounts, notes: Vec::new() }
}

/// The guest on the first of a machine's filesystems that holds one, with what its files say of its conversion.
pub fn inspect(trees: impl IntoIterator<Item = impl FileTree>, firmware: FirmwareKind) -> Found {
    let trees: Vec<_> = trees.into_iter().collect();
    let mut found = Found::default();
    for tree in &trees {
        let here = match is_windows(tree) {
            true => windows(tree, Some(surroundings(&trees, firmware))),
            false => Found { guest: identify(tree), windows: None },
        };
        // A host name tells a root filesystem from a mere /usr or a rescue system's partition.
        let is_better = found.guest.family == Family::Unknown || found.guest.hostname.is_none();
        if here.guest.family != Family::Unknown && is_better {
            found = here;
        }
    }
    found
}

/// What a Windows is started by, as the machine's other filesystems tell.
fn surroundings(trees: &[impl FileTree], firmware: FirmwareKind) -> Surroundings {
    let has = |path: &str| trees.iter().any(|tree| Paths::new(tree).resolve(path).is_ok_and(|found| found.is_some()));
    Surroundings { firmware, has_esp_bcd: has("/EFI/Microsoft/Boot/BCD"), has_boot_bcd: has("/Boot/BCD") }
}

/// What fstab(5) says, without what an operator's screen could not show.
fn mounts(tree: &dyn FileTree) -> Vec<Mount> {
    let text = tree.text("/etc/fstab").ok().flatten().unwrap_or_default();
    let fits = |field: &String| field.len() <= FIELD_MAX && !field.chars().any(|c| c.is_control() || c == '\u{fffd}');
    let lines = parse_fstab(&text)
        .into_iter()
        .filter(|line| [&line.device, &line.mount_point, &line.kind].into_iter().all(fits));
    let mount = |line: crate::linux::FilesystemLine| Mount {
        device: line.device,
        mount_point: line.mount_point,
        kind: line.kind,
    };
    lines.map(mount).take(MOUNTS_MAX).collect()
}

/// Whether there is a Windows folder; the spelling of names varies with version and installer.
fn is_windows(tree: &dyn FileTree) -> bool {
    let child = |folder: &str, name: &str| -> Option<String> {
        let entries = tree.list(folder).ok()?;
        let found = entries.into_iter().find(|entry| entry.name.eq_ignore_ascii_case(name))?;
        Some(format!("{}/{}", folder.trim_end_matches('/'), found.name))
    };
    ["windows", "winnt"].iter().any(|name| {
        child("/", name)
            .and_then(|windows| child(&windows, "system32"))
            .and_then(|system32| child(&system32, "config").or_else(|| child(&system32, "ntoskrnl.exe")))
            .is_some()
    })
}

/// What the hives of a Windows say; one whose hives cannot be read is a Windows all the same. All facts are read where its
/// surroundings are known.
fn windows(tree: &dyn FileTree, known: Option<Surroundings>) -> Found {
    let mut found = Found { guest: Guest { family: Family::Windows, ..Guest::default() }, windows: None };
    let installation = match Windows::open(tree) {
        Ok(Some(installation)) => installation,
        Ok(None) => return found,
        Err(error) => {
            let what = printable(&format!("the registry of Windows cannot be read: {error}")).unwrap_or_default();
            found.guest.notes.push(Note::warning(what, "it is copied as it is, and cannot be fixed up"));
            return found;
        }
    };
    let identity = if let Some(known) = known {
        let facts = Inspection::of(&installation, tree, &known);
        let short = |text: &str| text.chars().take(NOTE_MAX).collect();
        let note =
            |note: &Note| Note { severity: note.severity, what: short(&note.what), meaning: short(&note.meaning) };
        found.guest.notes = facts.notes.iter().take(NOTES_MAX).map(note).collect();
        found.windows.insert(facts).identity.clone()
    } else {
        Identity::of(&installation, tree).ok()
    };
    let Some(identity) = identity else { return found };
    let words = [Some(identity.product.as_str()), identity.feature_update.as_deref(), identity.service_pack.as_deref()];
    let arch = match identity.release.architecture {
        Architecture::X86 => "i386",
        Architecture::Amd64 => "x86_64",
        Architecture::Arm64 => "aarch64",
        other => other.name(),
    };
    found.guest.product = printable(&words.into_iter().flatten().collect::<Vec<_>>().join(" "));
    found.guest.version = printable(&identity.version());
    found.guest.arch = Some(arch.to_owned());
    found.guest.hostname = identity.hostname.filter(|name| is_hostname(name));
    found
}

/// Product and version.
fn release(tree: &dyn FileTree) -> Option<(Option<String>, Option<String>)> {
    let text = |path| tree.text(path).ok().flatten();
    let Some(os_release) = text("/etc/os-release").or_else(|| text("/usr/lib/os-release")) else {
        let version = printable(text("/etc/debian_version")?.trim())?;
        return Some((Some(format!("Debian GNU/Linux {version}")), Some(version)));
    };
    let values = shell::assignments(&os_release);
    let value = |name: &str| values.iter().rev().find(|(key, _)| key == name).and_then(|(_, value)| printable(value));
    let name = value("NAME");
    // A rolling or unreleased system (Debian sid) has no VERSION_ID.
    let version = value("VERSION_ID");
    let product = value("PRETTY_NAME").or(match (&name, &version) {
        (Some(name), Some(version)) => Some(format!("{name} {version}")),
        _ => name,
    });
    Some((product, version))
}

fn printable(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').take(NAME_MAX).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn arch(tree: &dyn FileTree) -> Option<String> {
    let programs = ["/bin/sh", "/usr/bin/dpkg", "/sbin/init", "/usr/lib/systemd/systemd", "/bin/ls"];
    let header = |path: &&str| {
        let mut header = [0; 64];
        let read = tree.read_at(path, 0, &mut header).ok()?;
        elf::parse_machine(&header[..read])
    };
    programs.iter().find_map(header).map(str::to_owned).or_else(|| dpkg_arch(tree))
}

/// From the list of architectures that dpkg keeps; its first line is its own.
fn dpkg_arch(tree: &dyn FileTree) -> Option<String> {
    let text = tree.text("/var/lib/dpkg/arch").ok()??;
    let arch = match text.lines().next()?.trim() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        known @ ("i386" | "riscv64" | "s390x") => known,
        _ => return None,
    };
    Some(arch.to_owned())
}

/// First line of `/etc/hostname` that is no comment, if it is a host name (RFC 1123, and `_`, which is in use).
fn hostname(tree: &dyn FileTree) -> Option<String> {
    let text = tree.text("/etc/hostname").ok().flatten()?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    is_hostname(line).then(|| line.to_owned())
}

fn is_hostname(text: &str) -> bool {
    let is_expected = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(is_expected) && !text.starts_with(['-', '.'])
}

/// For fuzzing: os-release, hostname and debian_version from arbitrary bytes.
pub fn identify_bytes(bytes: &[u8]) -> Guest {
    let tree = crate::tree::MemoryTree::new()
        .with("/etc/os-release", bytes)
        .with("/etc/hostname", bytes)
        .with("/etc/fstab", bytes)
        .with("/bin/sh", bytes)
        .with("/var/lib/dpkg/arch", bytes);
    identify(&tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    #[test]
    fn debian_is_identified_from_its_files() {
        let tree = MemoryTree::new()
            .with(
                "/usr/lib/os-release",
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n",
            )
            .with_link("/etc/os-release", "../usr/lib/os-release")
            .with("/etc/hostname", "phys1\n")
            .with("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\nUUID=\x07 /bell ext4\n")
            .with("/var/lib/dpkg/arch", "amd64\n");
        let expected = Guest {
            family: Family::Linux,
            product: Some("Debian GNU/Linux 12 (bookworm)".into()),
            version: Some("12".into()),
            arch: Some("x86_64".into()),
            hostname: Some("phys1".into()),
            mounts: vec![Mount { device: "/dev/sda1".into(), mount_point: "/".into(), kind: "ext4".into() }],
            notes: Vec::new(),
        };
        assert_eq!(identify(&tree), expected);
    }

    #[test]
    fn hostile_names_do_not_reach_the_screen() {
        let tree = MemoryTree::new()
            .with("/etc/os-release", format!("PRETTY_NAME=\"\x1b[2Jevil{}\"\nVERSION_ID=\n", "x".repeat(5000)))
            .with("/etc/hostname", "a;rm -rf /\n");
        let guest = identify(&tree);
        let product = guest.product.unwrap();
        assert!(!product.contains('\x1b') && product.chars().count() <= NAME_MAX);
        assert_eq!((guest.version, guest.hostname), (None, None));
    }

    #[test]
    fn windows_is_recognised_by_its_folder_in_any_spelling() {
        let tree = MemoryTree::new().with("/WINDOWS/System32/config/SYSTEM", "regf");
        let guest = identify(&tree);
        assert_eq!((guest.family, guest.product), (Family::Windows, None));
        println!("{}", guest.notes[0]);
        assert!(guest.notes[0].what.starts_with("the registry of Windows cannot be read"));
        assert_eq!(identify(&MemoryTree::new().with("/photos/1.jpg", "")).family, Family::Unknown);
    }

    #[test]
    fn debian_version_stands_in_for_a_missing_os_release() {
        let guest = identify(&MemoryTree::new().with("/etc/debian_version", "5.0.10\n"));
        assert_eq!(guest.product.as_deref(), Some("Debian GNU/Linux 5.0.10"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = identify_bytes(&bytes);
        }
    }
}

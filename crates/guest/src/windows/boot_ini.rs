//! `boot.ini` of Windows 2000, XP and Server 2003: what NTLDR starts, by ARC paths; read, and shown. What
//! that means for a conversion is told by the [inspection](super::inspection).
//!
//! Source: Microsoft, "Boot INI Options Reference" and KB 102873, "BOOT.INI and ARC Path Naming Conventions and Usage".

use std::fmt;

use serde::{Deserialize, Serialize};

use super::path;
use crate::{Error, ErrorKind, FileTree, Result};

/// Longest file. NTLDR itself reads no more than a few kibibytes.
pub const BOOT_INI_MAX: usize = 64 << 10;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootIni {
    /// Seconds that the menu waits.
    pub timeout: Option<u32>,
    /// What is started by itself, as it is written.
    pub default: Option<String>,
    /// What can be started.
    pub entries: Vec<Entry>,
}

/// A line of `[operating systems]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it lies, as it is written.
    pub path: String,
    /// The same, understood; `None` for a boot sector in a file (`C:\CMDCONS\BOOTSECT.DAT`).
    pub arc: Option<ArcPath>,
    /// What the menu shows.
    pub title: String,
    /// `/fastdetect` and its like.
    pub options: Vec<String>,
}

/// How NTLDR reaches a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Adapter {
    /// By the BIOS: `multi(0)`.
    Multi {
        /// The adapter.
        number: u32,
    },
    /// By a SCSI driver, `NTBOOTDD.SYS`: `scsi(0)`.
    Scsi {
        /// The adapter.
        number: u32,
    },
    /// By a SCSI driver, on the disk that has this signature: `signature(8b467c12)`.
    Signature {
        /// Signature of the disk.
        signature: u32,
    },
}

/// `multi(0)disk(0)rdisk(0)partition(1)\WINDOWS`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcPath {
    /// How the disk is reached.
    pub adapter: Adapter,
    /// SCSI number of the disk; 0 where the BIOS reaches it.
    pub disk: u32,
    /// Which disk of the BIOS, from 0; the logical unit where a driver reaches it.
    pub rdisk: u32,
    /// Which partition, from 1: primary ones first, then logical ones; unused and extended ones are not counted.
    pub partition: u32,
    /// The Windows folder, with `\`.
    pub folder: String,
}

impl ArcPath {
    /// The path in `text`; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, number, rest) = component(text)?;
        let decimal = |number: &str| number.parse::<u32>().ok();
        let adapter = match name.as_str() {
            "multi" => Adapter::Multi { number: decimal(number)? },
            "scsi" => Adapter::Scsi { number: decimal(number)? },
            "signature" => Adapter::Signature { signature: u32::from_str_radix(number, 16).ok()? },
            _ => return None,
        };
        let mut numbers = [0; 3];
        let mut rest = rest;
        for (expected, found) in ["disk", "rdisk", "partition"].into_iter().zip(&mut numbers) {
            let (name, number, after) = component(rest)?;
            *found = (name == expected).then(|| decimal(number)).flatten()?;
            rest = after;
        }
        let is_folder = rest.is_empty() || rest.starts_with('\\');
        let [disk, rdisk, partition] = numbers;
        is_folder.then(|| Self { adapter, disk, rdisk, partition, folder: rest.to_owned() })
    }
}

/// `name(number)` at the beginning of `text`, the name in lower case, and what follows.
fn component(text: &str) -> Option<(String, &str, &str)> {
    let (name, rest) = text.split_once('(')?;
    let (number, rest) = rest.split_once(')')?;
    Some((name.trim().to_ascii_lowercase(), number.trim(), rest))
}

impl fmt::Display for ArcPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.adapter {
            Adapter::Multi { number } => write!(f, "multi({number})")?,
            Adapter::Scsi { number } => write!(f, "scsi({number})")?,
            Adapter::Signature { signature } => write!(f, "signature({signature:x})")?,
        }
        write!(f, "disk({})rdisk({})partition({}){}", self.disk, self.rdisk, self.partition, self.folder)
    }
}

impl BootIni {
    /// That of the volume that is mounted at `mount`; `None` where there is none.
    ///
    /// # Errors
    /// What the tree says; `TooLarge` beyond [`BOOT_INI_MAX`].
    pub fn load(tree: &dyn FileTree, mount: &str) -> Result<Option<Self>> {
        let Some(path) = path::resolve(tree, &format!("{}/boot.ini", mount.trim_end_matches('/')))? else {
            return Ok(None);
        };
        let bytes = tree.read(&path, BOOT_INI_MAX as u64)?;
        bytes.map(|bytes| Self::parse(&bytes)).transpose().map_err(|error| error.at(path))
    }

    /// What the file `bytes` says. Lines that NTLDR does not understand are left out, as it does. Bytes beyond ASCII, which
    /// are of the code page of the machine's BIOS, are shown as U+FFFD.
    ///
    /// # Errors
    /// `TooLarge` beyond [`BOOT_INI_MAX`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > BOOT_INI_MAX {
            let context = format!("boot.ini of {} bytes, expected up to {BOOT_INI_MAX}", bytes.len());
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let text: String =
            bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '\u{fffd}' }).collect();
        let mut found = Self::default();
        let mut section = String::new();
        for line in text.split(['\r', '\n', '\u{1a}']).map(str::trim).filter(|line| !line.starts_with(';')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                section = name.trim().to_ascii_lowercase();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            match section.as_str() {
                // NTLDR's own name for the section; FlexBoot is what NT 3.1 calls it.
                "boot loader" | "flexboot" if key.eq_ignore_ascii_case("timeout") => found.timeout = value.parse().ok(),
                "boot loader" | "flexboot" if key.eq_ignore_ascii_case("default") => {
                    found.default = Some(value.to_owned());
                }
                "operating systems" => found.entries.push(Entry::parse(key, value)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// What is started by itself: the entry that `default` names, or the first.
    pub fn default_entry(&self) -> Option<&Entry> {
        let named = |entry: &&Entry| self.default.as_ref().is_some_and(|path| entry.path.eq_ignore_ascii_case(path));
        self.entries.iter().find(named).or(self.entries.first())
    }
}

impl Entry {
    fn parse(path: &str, value: &str) -> Self {
        let (title, options) = match value.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            Some((title, options)) => (title.to_owned(), options),
            None => match value.find(" /") {
                Some(at) => (value[..at].to_owned(), &value[at..]),
                None => (value.to_owned(), ""),
            },
        };
        let options = options.split_whitespace().map(str::to_owned).collect();
        Self { path: path.to_owned(), arc: ArcPath::parse(path), title, options }
    }
}

impl fmt::Display for BootIni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
        let started = self.default_entry();
        for entry in &self.entries {
            let mark = if started == Some(entry) { "*" } else { " " };
            writeln!(f, "{mark} {}: {} {}", plain(&entry.title), plain(&entry.path), plain(&entry.options.join(" ")))?;
        }
        match self.timeout {
            Some(seconds) => writeln!(f, "menu for {seconds} s"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    const XP: &str = "[boot loader]\r\ntimeout=30\r\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS\r\n\
        [operating systems]\r\n\
        C:\\CMDCONS\\BOOTSECT.DAT=\"Microsoft Windows Recovery Console\" /cmdcons\r\n\
        multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS=\"Microsoft Windows XP Professional\" /noexecute=optin /fastdetect\r\n\
        signature(8b467c12)disk(1)rdisk(0)partition(2)\\WINNT=\"Windows 2000\" /fastdetect\r\n";

    #[test]
    fn the_file_is_found_whatever_its_case() {
        let tree = MemoryTree::new().with("/c/BOOT.INI", XP);
        assert_eq!(BootIni::load(&tree, "/c/").unwrap(), Some(BootIni::parse(XP.as_bytes()).unwrap()));
        assert_eq!(BootIni::load(&tree, "/").unwrap(), None);
        let tree = MemoryTree::new().with("/boot.ini", "a".repeat(BOOT_INI_MAX + 1));
        assert_eq!(BootIni::load(&tree, "/").unwrap_err().kind, ErrorKind::TooLarge);
    }

    #[test]
    fn entries_are_understood_and_the_default_is_found() {
        let ini = BootIni::parse(XP.as_bytes()).unwrap();
        assert_eq!((ini.timeout, ini.entries.len()), (Some(30), 3));
        let started = ini.default_entry().unwrap();
        assert_eq!(started.title, "Microsoft Windows XP Professional");
        assert_eq!(started.options, ["/noexecute=optin", "/fastdetect"]);
        let arc = started.arc.as_ref().unwrap();
        assert_eq!((arc.rdisk, arc.partition, arc.folder.as_str()), (0, 1, "\\WINDOWS"));
        assert_eq!(ini.entries[0].arc, None);
        assert_eq!(ini.entries[2].arc.as_ref().unwrap().adapter, Adapter::Signature { signature: 0x8b46_7c12 });
        for entry in &ini.entries[1..] {
            assert_eq!(entry.arc.as_ref().unwrap().to_string(), entry.path);
        }
        println!("{ini}");
        assert!(
            ini.to_string()
                .contains("* Microsoft Windows XP Professional: multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS")
        );
    }

    #[test]
    fn files_that_people_wrote_are_read_as_far_as_they_go() {
        let ini = BootIni::parse(
            b"; mine\n[Boot Loader]\nTimeout = x\nDEFAULT = MULTI(0)Disk(0)RDisk(1)Partition(2)\\WinNT\n[Operating Systems]\n\
              multi(0)disk(0)rdisk(1)partition(2)\\winnt=Windows 2000 /fastdetect\nno line\nmulti(x)=a\n\xe4=\"b\n\x1aend=1",
        )
        .unwrap();
        assert_eq!(ini.timeout, None);
        let started = ini.default_entry().unwrap();
        assert_eq!((started.title.as_str(), started.options.len()), ("Windows 2000", 1));
        assert_eq!(ini.entries.iter().filter(|entry| entry.arc.is_none()).count(), 3);
        assert!(BootIni::parse(&vec![b'a'; BOOT_INI_MAX + 1]).is_err());
        let wrong =
            ["", "multi(0)", "multi(0)disk(0)rdisk(0)partition(1)WINDOWS", "multi(0)rdisk(0)disk(0)partition(1)"];
        assert!(wrong.iter().all(|text| ArcPath::parse(text).is_none()));
    }
}

//! "Using Dirids": numbers that stand for folders of Windows.

use serde::Serialize;

use super::parse_number;

/// Where folders with a number are in a guest, all below the root of its system drive, with `\`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// The Windows folder: `Windows`, `WINNT`.
    pub windows: String,
    /// Folder of this package in the driver store, below the Windows folder.
    pub package: String,
    /// Whether Windows is a 64-bit one.
    pub is_64_bit: bool,
}

/// A file or folder in a folder with a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The folder's number; `None` for a path as it is written, without one.
    pub directory: Option<u32>,
    /// Path below it, with `\`.
    pub path: String,
}

/// `-1` and 65535: the path is absolute.
pub(super) const ABSOLUTE: [u32; 2] = [u32::MAX, 65535];
/// The package's own folder in the driver store.
pub(super) const PACKAGE: u32 = 13;

impl Directories {
    /// The folder with a number, below the root of the system drive; `None` for one that is not there, or is not known.
    pub fn folder(&self, number: u32) -> Option<String> {
        let below_windows = |path: &str| Some(join(&self.windows, path));
        let programs = |path: &str| Some(join("Program Files", path));
        let programs_x86 = |path: &str| {
            let folder = if self.is_64_bit { "Program Files (x86)" } else { "Program Files" };
            Some(join(folder, path))
        };
        match number {
            10 => below_windows(""),
            11 => below_windows("System32"),
            12 => below_windows("System32\\drivers"),
            PACKAGE => below_windows(&self.package),
            17 => below_windows("INF"),
            18 => below_windows("Help"),
            20 => below_windows("Fonts"),
            21 => below_windows("System32\\viewers"),
            23 => below_windows("System32\\spool\\drivers\\color"),
            24 | 30 => Some(String::new()),
            50 => below_windows("System"),
            51 => below_windows("System32\\spool"),
            52 => below_windows("System32\\spool\\drivers"),
            55 => below_windows("System32\\spool\\prtprocs"),
            // 16384 and a CSIDL of Shlobj.h.
            16406 => Some("ProgramData\\Microsoft\\Windows\\Start Menu".into()),
            16407 => Some("ProgramData\\Microsoft\\Windows\\Start Menu\\Programs".into()),
            16408 => Some("ProgramData\\Microsoft\\Windows\\Start Menu\\Programs\\Startup".into()),
            16419 => Some("ProgramData".into()),
            16420 => below_windows(""),
            16421 => below_windows("System32"),
            16422 => programs(""),
            16425 => below_windows(if self.is_64_bit { "SysWOW64" } else { "System32" }),
            16426 => programs_x86(""),
            16427 => programs("Common Files"),
            16428 => programs_x86("Common Files"),
            _ => None,
        }
    }

    /// A path with `%12%` and its like as a place; `is_string` tells which numbers are strings of the file instead.
    pub(super) fn locate(path: &str, is_string: impl Fn(&str) -> bool) -> Option<(u32, String)> {
        let (number, rest) = path.strip_prefix('%')?.split_once('%')?;
        let digits =
            !number.is_empty() && number.strip_prefix('-').unwrap_or(number).bytes().all(|b| b.is_ascii_digit());
        let number = parse_number(number).filter(|_| digits && !is_string(number))?;
        Some((number, rest.trim_start_matches('\\').to_owned()))
    }
}

impl Location {
    /// The path below the root of the system drive. `None` where it leads elsewhere: to a folder that is not known,
    /// another drive, or out of its folder.
    pub fn resolve(&self, directories: &Directories) -> Option<String> {
        let path = match self.directory {
            Some(number) if ABSOLUTE.contains(&number) => below_system_drive(&self.path)?,
            Some(number) => join(&directories.folder(number)?, &self.path),
            None => match self.path.to_ascii_lowercase() {
                path if path.starts_with("\\systemroot\\") => join(&directories.windows, &self.path[12..]),
                path if path.starts_with("%systemroot%\\") => join(&directories.windows, &self.path[13..]),
                path if path.starts_with("system32\\") => join(&directories.windows, &self.path),
                _ => below_system_drive(&self.path)?,
            },
        };
        let safe = path
            .split('\\')
            .all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', ':', '\0']));
        safe.then_some(path)
    }
}

fn below_system_drive(path: &str) -> Option<String> {
    let (drive, rest) = path.split_once(":\\")?;
    drive.eq_ignore_ascii_case("c").then(|| rest.to_owned())
}

fn join(folder: &str, path: &str) -> String {
    match (folder, path.trim_matches('\\')) {
        ("", path) => path.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}\\{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(directory: Option<u32>, path: &str) -> Option<String> {
        let directories = Directories {
            windows: "Windows".into(),
            package: "System32\\DriverStore\\FileRepository\\x.inf_amd64_1".into(),
            is_64_bit: true,
        };
        Location { directory, path: path.into() }.resolve(&directories)
    }

    #[test]
    fn a_place_is_a_path_of_the_guest() {
        assert_eq!(resolved(Some(12), "viostor.sys").as_deref(), Some("Windows\\System32\\drivers\\viostor.sys"));
        assert_eq!(
            resolved(Some(13), "viostor.sys").as_deref(),
            Some("Windows\\System32\\DriverStore\\FileRepository\\x.inf_amd64_1\\viostor.sys")
        );
        assert_eq!(
            resolved(Some(10), "system32\\drivers\\a.sys").as_deref(),
            Some("Windows\\system32\\drivers\\a.sys")
        );
        assert_eq!(resolved(Some(16425), "a.dll").as_deref(), Some("Windows\\SysWOW64\\a.dll"));
        assert_eq!(resolved(Some(24), "a\\b").as_deref(), Some("a\\b"));
        assert_eq!(resolved(None, "\\SystemRoot\\System32\\x.sys").as_deref(), Some("Windows\\System32\\x.sys"));
        assert_eq!(resolved(Some(u32::MAX), "C:\\a\\b.sys").as_deref(), Some("a\\b.sys"));
    }

    #[test]
    fn no_place_leads_out_of_the_guest() {
        for (directory, path) in [
            (Some(12), "..\\..\\x"),
            (Some(12), "a\\\\b"),
            (Some(12), "c:x"),
            (Some(65535), "D:\\x"),
            (Some(66000), "x"),
            (None, "x"),
            (Some(24), ""),
        ] {
            assert_eq!(resolved(directory, path), None, "{path}");
        }
    }

    #[test]
    fn a_number_between_percent_signs_is_a_folder_unless_it_is_a_string() {
        assert_eq!(Directories::locate("%12%\\a.sys", |_| false), Some((12, "a.sys".into())));
        assert_eq!(Directories::locate("%-1%\\C:\\a", |_| false), Some((u32::MAX, "C:\\a".into())));
        assert_eq!(Directories::locate("%12%\\a.sys", |key| key == "12"), None);
        assert_eq!(Directories::locate("%SystemRoot%\\a.sys", |_| false), None);
        assert_eq!(Directories::locate("12\\a.sys", |_| false), None);
    }
}

//! "INF CopyFiles Directive" with the sections that it needs: SourceDisksNames, SourceDisksFiles, DestinationDirs.

use serde::Serialize;

use super::directory::ABSOLUTE;
use super::{Entry, Location, Section, Texts, parse_number, wrong};
use crate::Result;
use crate::windows::Architecture;

/// A file that is copied from the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileCopy {
    /// Where it is in the package: a path with `\`, relative to the folder of the INF file.
    pub source: String,
    /// Where it is copied to.
    pub destination: Location,
    /// `COPYFLG_…`.
    pub flags: u32,
    /// Cabinet that it is in, where it does not lie in the package as it is.
    pub cabinet: Option<String>,
}

/// The files of all `CopyFiles` of a section.
pub(super) fn copies(section: &Section, architecture: Architecture, texts: &mut Texts<'_>) -> Result<Vec<FileCopy>> {
    let mut copies = Vec::new();
    for name in texts.names(section, "CopyFiles")? {
        if let Some(file) = name.strip_prefix('@') {
            let file = file.trim();
            let destination = destination(None, file, texts)?;
            copies.push(copy(file, destination, 0, architecture, texts)?);
            continue;
        }
        // A list that is not there copies nothing, as in Windows.
        let Some(list) = texts.section(&name) else { continue };
        for entry in &list.entries {
            let Some(file) = file_name(entry, texts)? else { continue };
            let source = texts.present(entry, 1)?.unwrap_or_else(|| file.clone());
            let flags = texts.value(entry, 3)?;
            let flags = parse_number(&flags).ok_or_else(|| wrong(entry, format!("expected flags, found {flags:?}")))?;
            let destination = destination(Some(&name), &file, texts)?;
            copies.push(copy(&source, destination, flags, architecture, texts)?);
        }
    }
    Ok(copies)
}

/// Names of a list of files: those to be deleted.
pub(super) fn listed(section: &Section, key: &str, texts: &mut Texts<'_>) -> Result<Vec<Location>> {
    let mut files = Vec::new();
    for name in texts.names(section, key)? {
        let Some(list) = texts.section(&name) else { continue };
        for entry in &list.entries {
            if let Some(file) = file_name(entry, texts)? {
                files.push(destination(Some(&name), &file, texts)?);
            }
        }
    }
    Ok(files)
}

/// The file of an entry of a list; a list's entries have no key.
fn file_name(entry: &Entry, texts: &mut Texts<'_>) -> Result<Option<String>> {
    match &entry.key {
        Some(key) => Ok(Some(texts.expand(key)?)),
        None => texts.present(entry, 0),
    }
}

/// `[DestinationDirs]` for a list, else its default; without one, the system folder.
fn destination(list: Option<&str>, file: &str, texts: &mut Texts<'_>) -> Result<Location> {
    let section = texts.section("DestinationDirs");
    let entry = section
        .and_then(|section| list.and_then(|list| section.entry(list)).or_else(|| section.entry("DefaultDestDir")));
    let Some(entry) = entry else { return Ok(Location { directory: Some(11), path: file.to_owned() }) };
    let number = texts.value(entry, 0)?;
    let number = parse_number(&number)
        .ok_or_else(|| wrong(entry, format!("expected the number of a folder, found {number:?}")))?;
    let folder = texts.value(entry, 1)?;
    // A path on a certain drive keeps its start.
    let folder = if ABSOLUTE.contains(&number) { folder.trim_end_matches('\\') } else { folder.trim_matches('\\') };
    let path = if folder.is_empty() { file.to_owned() } else { format!("{folder}\\{file}") };
    texts.count(path.len())?;
    Ok(Location { directory: Some(number), path })
}

/// Where a file is in the package, by `[SourceDisksFiles]` and `[SourceDisksNames]`, those of the architecture first.
fn copy(
    file: &str,
    destination: Location,
    flags: u32,
    architecture: Architecture,
    texts: &mut Texts<'_>,
) -> Result<FileCopy> {
    let found = |section: &str, key: &str, texts: &Texts<'_>| {
        let names = [format!("{section}.{architecture}"), section.to_owned()];
        names.iter().find_map(|name| texts.section(name)?.entry(key)).cloned()
    };
    let mut folders = Vec::new();
    let mut cabinet = None;
    if let Some(entry) = found("SourceDisksFiles", file, texts) {
        let disk = texts.value(&entry, 0)?;
        if let Some(disk) = found("SourceDisksNames", &disk, texts) {
            cabinet = texts.present(&disk, 1)?.filter(|name| name.to_ascii_lowercase().ends_with(".cab"));
            folders.push(texts.value(&disk, 3)?);
        }
        folders.push(texts.value(&entry, 1)?);
    }
    folders.push(file.to_owned());
    let names = folders.iter().map(|folder| folder.trim_matches('\\')).filter(|folder| !folder.is_empty());
    let source = names.collect::<Vec<_>>().join("\\");
    texts.count(source.len())?;
    Ok(FileCopy { source, destination, flags, cabinet })
}

#[cfg(test)]
mod tests {
    use super::super::Inf;
    use super::*;

    const FILE: &str = "[Install]\nCopyFiles = Drivers, Absent, @readme.txt\nCopyFiles = Libraries\n\
        [Drivers]\na.sys,,,2\nb.sys, b_x64.sys, , 0x4000\n[Libraries]\nc.dll\n\
        [DestinationDirs]\nDefaultDestDir = 11, sub\nDrivers = 12\n\
        [SourceDisksNames]\n1 = \"Disk\",,,\"\"\n[SourceDisksNames.amd64]\n1 = \"Disk\",,,\\amd64\n3 = \"Disk\",files.cab\n\
        [SourceDisksFiles]\na.sys = 1,,\nb_x64.sys = 1,more\nc.dll = 3\n[SourceDisksFiles.x86]\na.sys = 1,i386\n";

    #[test]
    fn files_come_from_where_the_disks_of_the_architecture_say() {
        let inf = Inf::parse(FILE.as_bytes()).unwrap();
        let section = inf.section("install").unwrap();
        let copies = |architecture| copies(section, architecture, &mut inf.texts()).unwrap();
        let told: Vec<String> = copies(Architecture::Amd64)
            .iter()
            .map(|copy| {
                let Location { directory, path } = &copy.destination;
                format!("{} -> {} {path} 0x{:x} {:?}", copy.source, directory.unwrap(), copy.flags, copy.cabinet)
            })
            .collect();
        assert_eq!(
            told,
            [
                "amd64\\a.sys -> 12 a.sys 0x2 None",
                "amd64\\more\\b_x64.sys -> 12 b.sys 0x4000 None",
                "readme.txt -> 11 sub\\readme.txt 0x0 None",
                "c.dll -> 11 sub\\c.dll 0x0 Some(\"files.cab\")",
            ]
        );
        assert_eq!(copies(Architecture::X86)[0].source, "i386\\a.sys");
    }

    #[test]
    fn a_folder_that_is_no_number_is_an_error_with_its_line() {
        let inf = Inf::parse(b"[Install]\nCopyFiles=@a\n[DestinationDirs]\nDefaultDestDir = %11%\n").unwrap();
        let error = copies(inf.section("install").unwrap(), Architecture::X86, &mut inf.texts()).unwrap_err();
        assert_eq!(error.to_string(), "line 4: expected the number of a folder, found \"%11%\"");
    }
}

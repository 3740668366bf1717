//! The library of drivers for Windows: several releases side by side, each content once, whole or not at all; and the
//! driver that it has for a device.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use guest::windows::drivers::{Device, Library, Problem};
use guest::windows::{Architecture, Release};
use guest::{ErrorKind, MemoryTree};
use support::program;

/// A storage driver's INF file.
fn inf(target: &str, version: &str) -> String {
    format!(
        "[Version]\r\nSignature=\"$Windows NT$\"\r\nClass=SCSIAdapter\r\nProvider=Maker\r\nDriverVer={version}\r\n\
         [Manufacturer]\r\nMaker=models,{target}\r\n[models.{target}]\r\nDisk = i, PCI\\VEN_1AF4&DEV_1001\r\n\
         [i]\r\nCopyFiles=@disk.sys\r\n[DestinationDirs]\r\nDefaultDestDir=12\r\n\
         [i.Services]\r\nAddService=disk,2,s\r\n[s]\r\nServiceType=1\r\nStartType=0\r\nErrorControl=1\r\n\
         ServiceBinary=%12%\\disk.sys\r\n"
    )
}

/// One release with drivers for 7 and 10; the one for 10 twice.
fn medium(version: &str) -> MemoryTree {
    let amd64 = program(Architecture::Amd64, version);
    MemoryTree::new()
        .with("/w7/amd64/disk.inf", inf("NTamd64.6.1", &format!("01/01/2020,61.{version}")))
        .with("/w7/amd64/disk.sys", amd64.clone())
        .with("/w7/x86/disk.inf", inf("NTx86.6.1", &format!("01/01/2020,61.{version}")))
        .with("/w7/x86/disk.sys", program(Architecture::X86, version))
        .with("/w10/disk.inf", inf("NTamd64.10.0", &format!("01/01/2020,100.{version}")))
        .with("/w10/disk.sys", amd64.clone())
        .with("/2k19/Disk.INF", inf("NTamd64.10.0", &format!("01/01/2020,100.{version}")))
        .with("/2k19/disk.sys", amd64)
        .with("/autorun.inf", "[autorun]\r\nopen=setup.exe\r\n")
}

fn contents(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder.join("files")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn chosen(library: &Library, release: &str, architecture: Architecture) -> Option<(String, String)> {
    let device = Device::from_id("PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00");
    let release = Release::parse(release, architecture).unwrap();
    let first = library.choices(&device, &release, None).unwrap().fitting.into_iter().next()?;
    Some((first.release, first.package.paths[0].clone()))
}

#[test]
fn releases_stand_side_by_side_and_what_they_share_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    assert_eq!(library.releases().unwrap(), []);
    let first = library.add(&medium("1"), None, "one", "one.iso").unwrap();
    let packages: Vec<usize> = first.release.packages.iter().map(|package| package.paths.len()).collect();
    // The two folders for 10 hold INF files of different names.
    assert_eq!(packages, [1, 1, 1, 1]);
    assert_eq!(first.release.left_out.len(), 1);
    assert!(first.release.left_out[0].path == "/autorun.inf" && !first.was_there);
    assert!(first.release.packages.iter().all(|package| package.problems == [Problem::Unsigned]));
    // Three INF files and two programs.
    assert_eq!(contents(folder.path()).len(), 5);
    let again = library.add(&medium("1"), None, "one", "elsewhere.iso").unwrap();
    assert_eq!((again.was_there, again.written), (true, 0));
    let second = library.add(&medium("2"), None, "two", "two.iso").unwrap();
    assert_eq!((second.was_there, contents(folder.path()).len()), (false, 10));
    let conflict = library.add(&medium("2"), None, "one", "two.iso").unwrap_err();
    assert_eq!(conflict.kind, ErrorKind::Changed, "{conflict}");

    let amd64 = Architecture::Amd64;
    assert_eq!(chosen(&library, "2008r2", amd64), Some(("two".into(), "/w7/amd64/disk.inf".into())));
    assert_eq!(chosen(&library, "2019", amd64).unwrap().0, "two");
    assert_eq!(chosen(&library, "7", Architecture::X86), Some(("two".into(), "/w7/x86/disk.inf".into())));
    assert_eq!(chosen(&library, "2008", amd64), None);
    let device = Device::from_id("PCI\\VEN_1AF4&DEV_1001");
    let vista = library.choices(&device, &Release::parse("vista", amd64).unwrap(), Some("one")).unwrap();
    let reasons: Vec<(&str, &str)> =
        vista.refused.iter().map(|refused| (refused.path.as_str(), refused.why.as_str())).collect();
    assert!(reasons.contains(&("/w7/amd64/disk.inf", "it is for NTamd64.6.1")), "{reasons:?}");

    library.remove("two").unwrap();
    assert_eq!((contents(folder.path()).len(), library.releases().unwrap().len()), (5, 1));
    assert_eq!(chosen(&library, "2019", amd64).unwrap().0, "one");
    assert_eq!(library.remove("two").unwrap_err().kind, ErrorKind::Missing);
}

#[test]
fn an_addition_that_was_cut_off_is_not_there_and_is_finished_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    let whole = library.add(&medium("1"), None, "one", "x").unwrap().written;
    // As it is when the program is killed before the list is written, and once more in the midst of a content.
    std::fs::remove_file(folder.path().join("releases/one.json")).unwrap();
    let one = contents(folder.path()).into_iter().next().unwrap();
    let size = std::fs::metadata(folder.path().join("files").join(&one)).unwrap().len();
    std::fs::rename(folder.path().join("files").join(&one), folder.path().join(".new")).unwrap();
    assert_eq!(library.releases().unwrap(), []);
    let rest = library.add(&medium("1"), None, "one", "x").unwrap();
    assert_eq!((rest.was_there, rest.written), (false, size));
    assert!(size < whole && library.release("one").is_ok());
}

#[test]
fn what_was_changed_in_the_library_is_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    let release = library.add(&medium("1"), Some("/w10/disk.inf"), "single", "disk.inf").unwrap().release;
    assert_eq!((release.packages.len(), release.left_out.len()), (1, 0));
    let file = release.packages[0].file("DISK.SYS").unwrap();
    let path = folder.path().join("files").join(&file.digest);
    std::fs::write(&path, "other").unwrap();
    assert_eq!(library.content(file).unwrap_err().kind, ErrorKind::Changed);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(library.content(file).unwrap_err().kind, ErrorKind::Missing);
    let list = folder.path().join("releases/single.json");
    let text = std::fs::read_to_string(&list).unwrap();
    // A list that leads out of the library.
    std::fs::write(&list, text.replace(&file.digest, "../../etc/passwd")).unwrap();
    let file = library.release("single").unwrap().packages[0].file("disk.sys").unwrap().clone();
    assert_eq!(library.content(&file).unwrap_err().kind, ErrorKind::Malformed);
    std::fs::write(&list, "{").unwrap();
    assert_eq!(library.releases().unwrap_err().kind, ErrorKind::Malformed);
    library.remove("single").unwrap();
    assert_eq!(contents(folder.path()).len(), 0);
}

#[test]
fn a_driver_whose_program_is_for_another_machine_comes_last_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    let wrong = MemoryTree::new()
        .with("/disk.inf", inf("NTamd64.10.0", "01/01/2030,999.0"))
        .with("/disk.sys", program(Architecture::X86, ""));
    library.add(&wrong, None, "wrong", "x").unwrap();
    library.add(&medium("1"), None, "right", "x").unwrap();
    let device = Device::from_id("PCI\\VEN_1AF4&DEV_1001");
    let release = Release::parse("10", Architecture::Amd64).unwrap();
    let fitting = library.choices(&device, &release, None).unwrap().fitting;
    assert_eq!((fitting.len(), fitting[0].release.as_str()), (4, "right"));
    let last = fitting.last().unwrap();
    assert_eq!(
        (last.release.as_str(), last.obstacles[0].as_str()),
        ("wrong", "disk.sys is a program for machine 0x14c, not for amd64")
    );
}

#[test]
fn bad_input_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    for name in ["", ".hidden", "../x", "a/b", "-x", "a b", &"x".repeat(101)] {
        assert_eq!(library.add(&medium("1"), None, name, "x").unwrap_err().kind, ErrorKind::Malformed, "{name}");
    }
    let nothing = library.add(&MemoryTree::new().with("/readme.txt", ""), None, "a", "x").unwrap_err();
    assert_eq!(nothing.to_string(), "x: no driver for Windows in it: 0 INF files");
    let other = MemoryTree::new().with("/autorun.inf", "[autorun]\r\n");
    let other = library.add(&other, None, "a", "medium.iso").unwrap_err();
    assert!(
        other
            .to_string()
            .starts_with("medium.iso: no driver for Windows in it: 1 INF files; /autorun.inf: no [Version]")
    );
    let single = library.add(&medium("1"), Some("/none.inf"), "a", "x").unwrap_err();
    assert_eq!(single.kind, ErrorKind::Missing);
    assert_eq!(library.releases().unwrap(), []);
}

//! Disks with a Windows go through the whole pipeline: real hives and a real boot store on NTFS, changed in the appliance. What is
//! different afterwards, file by file and key by key, equals a golden file; a second conversion of the result changes nothing; the
//! bundle that lies with the VM takes every change of the registry back. None of these disks boots (they have no program of Microsoft's).
#![allow(clippy::unwrap_used)]

mod windows;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lab::WindowsDisk;
use serde_json::Value;
use windows::differences::{contents, differences, lines};
use windows::support::test_data;
use windows::{Case, SEVEN, TEN, XP, convert, files, library, ran, vconverter};

fn check(case: &Case) {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (system, boot) = files(&data, case, folder.path());
    let disk =
        WindowsDisk::make(&folder.path().join("disk.raw"), case.layout, case.size, case.heads, &system, &boot).unwrap();
    let source = lab::hash_file(&disk.path).unwrap();
    let library = library(case, folder.path());
    let told: Value =
        serde_json::from_str(&ran(vconverter().args(["--json", "inspect"]).arg(&disk.path).output().unwrap())).unwrap();
    assert_eq!(told["guest"]["hostname"], case.hostname);
    assert_eq!(told["windows"]["identity"]["hostname"], case.hostname);
    let findings = told["findings"].as_array().unwrap();
    println!("{}: {} findings, the first: {}", case.name, findings.len(), findings[0]["found"]);
    assert!(findings.iter().any(|finding| finding["found"].as_str().unwrap().contains("the clock runs in local time")));

    let (outcome, converted) = convert(&disk.path, &library, &folder.path().join("out"), "first");
    assert_eq!(lab::hash_file(&disk.path).unwrap(), source, "the source was changed");
    let (was, is) = (folder.path().join("was"), folder.path().join("is"));
    disk.read(&disk.path, &was).unwrap();
    disk.read(&converted, &is).unwrap();
    let (before, after) = (contents(&was), contents(&is));
    let found = differences(&before, &after);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/windows-{}.txt", case.name));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &found).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    let first = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "first difference from {}: {first:?}", golden.display());
    println!("{}: {} lines of differences, as in the golden file", case.name, found.lines().count());
    let definition = fs::read_to_string(folder.path().join("out/first/first.xml")).unwrap();
    assert!(definition.contains(&format!("bus=\"{}\"", case.bus)), "{definition}");
    println!("{}: disks on {}, {} fix-ups", case.name, case.bus, outcome["fixups"].as_array().unwrap().len());

    // Beside files: the heads in the boot sector of Windows, which is read before any file is.
    let heads_of = |disk: &Path, offset: u64| {
        let mut heads = [0];
        fs::File::open(disk).unwrap().read_exact_at(&mut heads, offset + 0x1a).unwrap();
        heads[0]
    };
    let (before_it, after_it) =
        (heads_of(&disk.path, disk.system_offset()), heads_of(&converted, disk.system_offset()));
    println!("{}: {before_it} heads in the boot sector, then {after_it}", case.name);
    assert_eq!((before_it, after_it), (case.heads, 255));

    // Again: nothing is left to be done.
    let again = folder.path().join("disk-again.raw");
    fs::rename(&converted, &again).unwrap();
    let (outcome, converted) = convert(&again, &library, &folder.path().join("out"), "second");
    for fixup in outcome["fixups"].as_array().unwrap() {
        assert!(["already so", "made"].contains(&fixup["result"].as_str().unwrap()), "{fixup}");
        let is_nonce = fixup["id"] == "first-boot";
        assert!(fixup["result"] == "already so" || is_nonce, "{fixup}");
    }
    let second = folder.path().join("second");
    disk.read(&converted, &second).unwrap();
    let left = differences(&after, &contents(&second));
    // The plan of the first boot has the nonce of its conversion.
    assert!(left.lines().all(|line| line.starts_with("changed ") && line.ends_with("/plan.json")), "{left}");

    // And what is in the bundle takes it back.
    for hive in ["SYSTEM", "SOFTWARE"] {
        let bundle = folder.path().join("out/first/undo").join(format!("{hive}.reg"));
        if !bundle.exists() {
            continue;
        }
        let file = is.join("system/Windows/System32/config").join(hive);
        ran(vconverter().args(["registry", "merge"]).arg(&file).arg(&bundle).output().unwrap());
    }
    let undone = contents(&is);
    for (name, content) in before.iter().filter(|(name, _)| name.ends_with("/SYSTEM") || name.ends_with("/SOFTWARE")) {
        let left = lines(&String::from_utf8_lossy(content), &String::from_utf8_lossy(&undone[name]));
        assert_eq!(left, "", "{name} is not as it was");
    }
}

#[test]
fn windows_10_on_a_uefi_disk_is_made_ready_and_what_changed_is_known() {
    check(&TEN);
}

#[test]
#[ignore = "full row"]
fn windows_7_on_a_bios_disk_is_made_ready_and_what_changed_is_known() {
    check(&SEVEN);
}

#[test]
#[ignore = "full row"]
fn windows_xp_on_a_bios_disk_is_made_ready_and_what_changed_is_known() {
    check(&XP);
}

//! Disks with a Windows go through the whole pipeline: real hives and a real boot store on NTFS, changed in the appliance. What is
//! different afterwards, file by file and key by key, equals a golden file; a second conversion of the result changes nothing; the
//! bundle that lies with the VM takes every change of the registry back. None of these disks boots (they have no program of Microsoft's).
#![allow(clippy::unwrap_used)]

#[path = "../../block/tests/support/test_data.rs"]
mod test_data;
#[path = "../../guest/tests/virtio/mod.rs"]
mod virtio;

/// What the module of virtio drivers asks for.
mod support {
    pub(crate) use crate::test_data::test_data;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use lab::{WindowsDisk, WindowsLayout};
use serde_json::Value;
use test_data::test_data;
use virtio::{group, stamped};

struct Case {
    name: &'static str,
    layout: WindowsLayout,
    system: &'static str,
    /// A whole hive, or what stands in one that is made.
    software: Software,
    /// `NTx86` or `NTamd64` with the version, of the drivers that fit.
    drivers: &'static str,
    /// Bus of its disks afterwards.
    bus: &'static str,
}

enum Software {
    Real(&'static str),
    Made { build: &'static str, version: &'static str, major: Option<u32> },
}

const XP: Case = Case {
    name: "xp-bios",
    layout: WindowsLayout::Bios,
    system: "SYSTEM-xpsp3-x86-clean",
    software: Software::Made { build: "2600", version: "5.1", major: None },
    drivers: "none",
    bus: "ide",
};
const SEVEN: Case = Case {
    name: "7-bios",
    layout: WindowsLayout::Bios,
    system: "SYSTEM-win7sp1-x86-clean",
    software: Software::Real("SOFTWARE-win7sp1-x86-clean"),
    drivers: "x86",
    bus: "virtio",
};
const TEN: Case = Case {
    name: "10-uefi",
    layout: WindowsLayout::Uefi,
    system: "SYSTEM-win10-1709-x64-dirty",
    software: Software::Made { build: "16299", version: "6.3", major: Some(10) },
    drivers: "amd64",
    bus: "virtio",
};

/// Programs of Windows that a plan looks for; here they hold their own names.
const PROGRAMS: &[&str] = &[
    "ntoskrnl.exe",
    "drivers/intelide.sys",
    "drivers/pciide.sys",
    "drivers/atapi.sys",
    "drivers/msahci.sys",
    "drivers/storahci.sys",
    "drivers/lsi_sas.sys",
    "drivers/vmbus.sys",
    "drivers/storvsc.sys",
];

fn vconverter() -> Command {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("vconverter");
    let mut command = Command::new(program);
    command.stdin(std::process::Stdio::null());
    command
}

fn ran(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn unpack(data: &Path, name: &str, to: &Path) {
    let file = fs::File::open(data.join(format!("hives/{name}.zst"))).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::io::copy(&mut decoder, &mut fs::File::create(to).unwrap()).unwrap();
}

/// A SOFTWARE hive with what tells the release.
fn made_software(data: &Path, build: &str, version: &str, major: Option<u32>, to: &Path) {
    let mut text = format!(
        "Windows Registry Editor Version 5.00\n\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion]\n\
         \"CurrentBuildNumber\"=\"{build}\"\n\"CurrentVersion\"=\"{version}\"\n\"ProductName\"=\"Windows of the lab\"\n"
    );
    if let Some(major) = major {
        text.push_str(&format!(
            "\"CurrentMajorVersionNumber\"=dword:{major:08x}\n\"CurrentMinorVersionNumber\"=dword:00000000\n"
        ));
    }
    text.push_str("\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion]\n\"ProgramFilesDir\"=\"C:\\\\Program Files\"\n");
    unpack(data, "odd/EmptyHive", to);
    let file = to.with_extension("reg");
    fs::write(&file, text).unwrap();
    ran(vconverter()
        .args(["registry", "merge"])
        .arg(to)
        .arg(&file)
        .args(["--prefix", "HKLM\\SOFTWARE"])
        .output()
        .unwrap());
    fs::remove_file(file).unwrap();
}

/// The folders with what both volumes hold.
fn files(data: &Path, case: &Case, folder: &Path) -> (PathBuf, PathBuf) {
    let (system, boot) = (folder.join("c"), folder.join("boot"));
    let config = system.join("Windows/System32/config");
    unpack(data, case.system, &config.join("SYSTEM"));
    for log in ["LOG1", "LOG2"] {
        if data.join(format!("hives/{}.{log}.zst", case.system)).exists() {
            unpack(data, &format!("{}.{log}", case.system), &config.join(format!("SYSTEM.{log}")));
        }
    }
    match &case.software {
        Software::Real(name) => unpack(data, name, &config.join("SOFTWARE")),
        Software::Made { build, version, major } => {
            made_software(data, build, version, *major, &config.join("SOFTWARE"))
        }
    }
    for program in PROGRAMS {
        let file = system.join("Windows/System32").join(program);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, program).unwrap();
    }
    fs::create_dir_all(system.join("Windows/INF")).unwrap();
    fs::create_dir_all(system.join("Program Files")).unwrap();
    fs::write(system.join("Windows/INF/oem0.inf"), "taken").unwrap();
    let store = match case.layout {
        WindowsLayout::Uefi => {
            fs::create_dir_all(boot.join("EFI/Microsoft/Boot")).unwrap();
            fs::write(boot.join("EFI/Microsoft/Boot/bootmgfw.efi"), program(0x8664)).unwrap();
            boot.join("EFI/Microsoft/Boot/BCD")
        }
        WindowsLayout::Bios => {
            fs::create_dir_all(boot.join("Boot")).unwrap();
            fs::write(boot.join("bootmgr"), "boot manager").unwrap();
            boot.join("Boot/BCD")
        }
    };
    unpack(data, "BCD-win10-uefi", &store);
    (system, boot)
}

/// A program as far as its header goes.
fn program(machine: u16) -> Vec<u8> {
    let mut program = vec![0; 0x40];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 0x40;
    program.extend(b"PE\0\0");
    program.extend(machine.to_le_bytes());
    program.extend(vec![0x90; 40_000]);
    program
}

/// virtio's storage and network drivers in a library, stamped as virtio-win's build does it.
fn library(case: &Case, folder: &Path) -> PathBuf {
    let (medium, library) = (folder.join("medium"), folder.join("library"));
    let all = group().unwrap();
    let (architecture, machine) = if case.drivers == "x86" { ("x86", 0x14c_u16) } else { ("amd64", 0x8664) };
    for (name, template) in [
        ("viostor", "kvm-guest-drivers-windows/viostor/viostor.inx"),
        ("vioscsi", "kvm-guest-drivers-windows/vioscsi/vioscsi.inx"),
        ("netkvm", "kvm-guest-drivers-windows/NetKVM/netkvm-base.txt"),
    ] {
        for (release, version, first) in [("w7", "6.1", 61), ("w10", "10.0", 100)] {
            let place = medium.join(name).join(release).join(architecture);
            fs::create_dir_all(&place).unwrap();
            let stamp = format!("DriverVer=07/22/2026,{first}.6.101.58000 ; ");
            let inf = stamped(&String::from_utf8_lossy(&all[template]), "12")
                .replace("NT$ARCH$", &format!("NT{architecture}.{version}"))
                .replace("DriverVer=", &stamp);
            fs::write(place.join(format!("{name}.inf")), inf).unwrap();
            fs::write(place.join(format!("{name}.sys")), program(machine)).unwrap();
            fs::write(place.join("netkvmp.exe"), program(machine)).unwrap();
        }
    }
    ran(vconverter().args(["drivers", "add", "--library"]).arg(&library).arg(&medium).output().unwrap());
    library
}

/// Converts `disk`; what became of it, and where the result is.
fn convert(disk: &Path, library: &Path, output: &Path, name: &str) -> (Value, PathBuf) {
    fs::create_dir_all(output).unwrap();
    let started = Instant::now();
    let mut command = vconverter();
    command.args(["--json", "convert", "--no-prove-boot", "--name", name, "--output"]).arg(output);
    let text = command.arg("--library").arg(library).arg(disk).output().unwrap();
    let mut last = Value::Null;
    for line in String::from_utf8_lossy(&text.stdout).lines() {
        last = serde_json::from_str(line).unwrap();
        if last["event"] == "log" || last["event"] == "warning" {
            println!("[{:>3} s] {}", started.elapsed().as_secs(), last["message"].as_str().unwrap());
        }
    }
    assert_eq!(last["event"], "done", "{last} {}", String::from_utf8_lossy(&text.stderr));
    let result = output.join(name);
    let raw = output.join(format!("{name}.raw"));
    let image = result.join(format!("{name}-disk0.qcow2"));
    ran(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(image).arg(&raw).output().unwrap());
    (last["outcome"].clone(), raw)
}

fn is_hive(path: &str) -> bool {
    ["SYSTEM", "SOFTWARE", "BCD"].iter().any(|hive| path.ends_with(&format!("/{hive}")))
}

/// Every file below a folder with its content, hives as the text of a registration file.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let content = match is_hive(&name) {
                true => ran(vconverter().args(["registry", "export"]).arg(&path).output().unwrap()).into_bytes(),
                false => fs::read(&path).unwrap(),
            };
            found.insert(name, content);
        }
    }
    found
}

/// Files that were made, changed and removed; of hives, the lines that differ, under their keys.
fn differences(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> String {
    let mut text = String::new();
    for (name, content) in after {
        match before.get(name) {
            None => text.push_str(&format!("made {name}\n")),
            Some(old) if old == content => {}
            Some(_) if content.is_empty() => text.push_str(&format!("emptied {name}\n")),
            Some(old) => {
                text.push_str(&format!("changed {name}\n"));
                if is_hive(name) {
                    text.push_str(&lines(&String::from_utf8_lossy(old), &String::from_utf8_lossy(content)));
                }
            }
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        text.push_str(&format!("removed {name}\n"));
    }
    text
}

/// Values by their keys, of the text of a registration file.
fn values(text: &str) -> BTreeMap<&str, BTreeMap<&str, String>> {
    let (mut keys, mut key, mut last): (BTreeMap<&str, BTreeMap<&str, String>>, _, _) = (BTreeMap::new(), "", "");
    for line in text.lines().skip(1) {
        if line.starts_with('[') {
            key = line;
            keys.entry(key).or_default();
        } else if let Some(rest) = line.strip_prefix("  ") {
            keys.get_mut(key).unwrap().get_mut(last).unwrap().push_str(rest);
        } else if !line.is_empty() {
            let end = line.find("\"=").map_or(1, |at| at + 1);
            last = &line[..end];
            keys.get_mut(key).unwrap().insert(last, line[end..].to_owned());
        }
    }
    keys
}

fn lines(before: &str, after: &str) -> String {
    let (before, after) = (values(before), values(after));
    let mut text = String::new();
    for key in before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (old, new) = (before.get(key), after.get(key));
        if old == new {
            continue;
        }
        let sign = match (old, new) {
            (None, _) => "+",
            (_, None) => "-",
            _ => " ",
        };
        text.push_str(&format!("  {sign}{key}\n"));
        let empty = BTreeMap::new();
        let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        for name in old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>() {
            if old.get(name) != new.get(name) {
                let show = |sign: &str, data: Option<&String>| {
                    data.map_or(String::new(), |data| format!("   {sign}{name}{data}\n"))
                };
                text.push_str(&show("-", old.get(name)));
                text.push_str(&show("+", new.get(name)));
            }
        }
    }
    text
}

fn check(case: &Case) {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (system, boot) = files(&data, case, folder.path());
    let disk = WindowsDisk::make(&folder.path().join("disk.raw"), case.layout, 512 << 20, &system, &boot).unwrap();
    let source = lab::hash_file(&disk.path).unwrap();
    let library = library(case, folder.path());

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

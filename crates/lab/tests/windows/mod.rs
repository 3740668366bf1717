//! Disks with a Windows, drivers for it, and a conversion by the shipped program.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod differences;
#[path = "../../../block/tests/support/test_data.rs"]
mod test_data;
#[path = "../../../guest/tests/virtio/mod.rs"]
mod virtio;

pub(crate) mod support {
    pub(crate) use super::test_data::test_data;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use lab::WindowsLayout;
use serde_json::Value;
use virtio::{group, stamped};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) layout: WindowsLayout,
    /// As its hive has it.
    pub(crate) hostname: &'static str,
    pub(crate) system: &'static str,
    /// A whole hive, or what stands in one that is made.
    pub(crate) software: Software,
    /// `NTx86` or `NTamd64` with the version, of the drivers that fit.
    pub(crate) drivers: &'static str,
    /// Bytes of its disk, and the heads that its BIOS showed of it.
    pub(crate) size: u64,
    pub(crate) heads: u8,
    /// Bus of its disks afterwards.
    pub(crate) bus: &'static str,
}

pub(crate) enum Software {
    Real(&'static str),
    Made { build: &'static str, version: &'static str, major: Option<u32> },
}

pub(crate) const XP: Case = Case {
    name: "xp-bios",
    hostname: "iecompatvhd",
    layout: WindowsLayout::Bios,
    system: "SYSTEM-xpsp3-x86-clean",
    software: Software::Made { build: "2600", version: "5.1", major: None },
    drivers: "none",
    // Beyond what cylinders reach: there every BIOS of a VM shows 255 heads.
    size: 9 << 30,
    heads: 240,
    bus: "ide",
};
pub(crate) const SEVEN: Case = Case {
    name: "7-bios",
    hostname: "WKS-WIN732BITA",
    layout: WindowsLayout::Bios,
    system: "SYSTEM-win7sp1-x86-clean",
    software: Software::Real("SOFTWARE-win7sp1-x86-clean"),
    drivers: "x86",
    size: 512 << 20,
    heads: 255,
    bus: "virtio",
};
pub(crate) const TEN: Case = Case {
    name: "10-uefi",
    hostname: "DESKTOP-PM6C56D",
    layout: WindowsLayout::Uefi,
    system: "SYSTEM-win10-1709-x64-dirty",
    software: Software::Made { build: "16299", version: "6.3", major: Some(10) },
    drivers: "amd64",
    size: 512 << 20,
    heads: 255,
    bus: "virtio",
};

/// Programs of Windows that a plan looks for; here they hold their own names.
pub(crate) const PROGRAMS: &[&str] = &[
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

pub(crate) fn vconverter() -> Command {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("vconverter");
    let mut command = Command::new(program);
    command.stdin(std::process::Stdio::null());
    command
}

pub(crate) fn ran(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn unpack(data: &Path, name: &str, to: &Path) {
    let file = fs::File::open(data.join(format!("hives/{name}.zst"))).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::io::copy(&mut decoder, &mut fs::File::create(to).unwrap()).unwrap();
}

/// A SOFTWARE hive with what tells the release.
pub(crate) fn made_software(data: &Path, build: &str, version: &str, major: Option<u32>, to: &Path) {
    let mut text = format!(
        "Windows Registry Editor Version 5.00\n\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion]\n\
         \"CurrentBuildNumber\"=\"{build}\"\n\"CurrentVersion\"=\"{version}\"\n\"ProductName\"=\"Windows of the lab\"\n\"InstallationType\"=\"Client\"\n"
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
pub(crate) fn files(data: &Path, case: &Case, folder: &Path) -> (PathBuf, PathBuf) {
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
    // By this one libguestfs tells a Windows and its processor.
    let machine = if case.drivers == "amd64" { 0x8664 } else { 0x14c };
    fs::write(system.join("Windows/System32/cmd.exe"), program(machine)).unwrap();
    fs::create_dir_all(system.join("Windows/INF")).unwrap();
    fs::create_dir_all(system.join("Windows/Temp")).unwrap();
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

/// A program as far as its headers go (PE format, sections 3.3 and 3.4): a console program for `machine`.
pub(crate) fn program(machine: u16) -> Vec<u8> {
    const AMD64: u16 = 0x8664;
    let mut program = vec![0; 0x40];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 0x40;
    program.extend(b"PE\0\0");
    program.extend(machine.to_le_bytes());
    program.extend([0; 14]);
    let (size, magic): (u16, u16) = if machine == AMD64 { (0xf0, 0x20b) } else { (0xe0, 0x10b) };
    program.extend(size.to_le_bytes());
    program.extend(0x22_u16.to_le_bytes());
    let mut optional = vec![0; usize::from(size)];
    optional[..2].copy_from_slice(&magic.to_le_bytes());
    optional[68] = 3;
    program.extend(optional);
    program.extend(vec![0x90; 40_000]);
    program
}

/// virtio's storage and network drivers in a library, stamped as virtio-win's build does it.
pub(crate) fn library(case: &Case, folder: &Path) -> PathBuf {
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
            fs::write(place.join(format!("{name}.cat")), "catalog").unwrap();
        }
    }
    ran(vconverter().args(["drivers", "add", "--library"]).arg(&library).arg(&medium).output().unwrap());
    library
}

/// Converts `disk`; what became of it, and where the result is.
pub(crate) fn convert(disk: &Path, library: &Path, output: &Path, name: &str) -> (Value, PathBuf) {
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

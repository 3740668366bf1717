//! Windows guests of the test data in memory: real SYSTEM hives where Windows has them, a SOFTWARE hive that is real or says
//! what the real one would, and the drivers' files as far as a plan looks at them; and a library of virtio drivers.

use std::path::Path;

use guest::MemoryTree;
use guest::windows::drivers::{Hypervisor, INBOX_DRIVERS, Library};
use guest::windows::hive::{Filetime, KeyPath};
use guest::windows::{Additions, Architecture, FirstBoot, Release, Script, reg_text};

use crate::support::{hive, program, unpack};
use crate::virtio::{group, stamped};

/// A guest by the name of its golden file.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) system: &'static str,
    pub(crate) release: &'static str,
    pub(crate) architecture: Architecture,
    software: Option<&'static str>,
}

/// The releases whose own SYSTEM hives are there.
pub(crate) const SAMPLES: [Sample; 3] = [
    Sample {
        name: "xp",
        system: "hives/SYSTEM-xpsp3-x86-clean",
        release: "xp",
        architecture: Architecture::X86,
        software: None,
    },
    Sample {
        name: "7",
        system: "hives/SYSTEM-win7sp1-x86-clean",
        release: "7",
        architecture: Architecture::X86,
        software: Some("hives/SOFTWARE-win7sp1-x86-clean"),
    },
    Sample {
        name: "10",
        system: "hives/SYSTEM-win10-19041-x64-clean",
        release: "10.0.19041",
        architecture: Architecture::Amd64,
        software: None,
    },
];

impl Sample {
    pub(crate) fn release(&self) -> Release {
        Release::parse(self.release, self.architecture).unwrap()
    }

    /// The same hive with a SOFTWARE hive that says that it is another release.
    pub(crate) fn as_release(&self, release: &'static str) -> Self {
        Self { name: release, release, software: None, ..*self }
    }

    /// Its files, with `system` as the hive of that name.
    pub(crate) fn tree_with(&self, data: &Path, system: Vec<u8>) -> MemoryTree {
        let software = self.software.map_or_else(|| made_software(data, &self.release()), |name| unpack(data, name));
        let config = "/system/Windows/System32/config";
        let mut tree = MemoryTree::new()
            .with(&format!("{config}/SYSTEM"), system)
            .with(&format!("{config}/SOFTWARE"), software)
            .with("/system/Windows/inf/oem0.inf", "taken");
        for driver in INBOX_DRIVERS.iter().filter(|driver| driver.is_in(&self.release())) {
            tree = tree.with(&format!("/system/Windows/System32/drivers/{}", driver.file), driver.service);
        }
        tree
    }

    pub(crate) fn tree(&self, data: &Path) -> MemoryTree {
        self.tree_with(data, unpack(data, self.system))
    }
}

/// A SOFTWARE hive with what tells the release, DevicePath, and VMware's tools.
fn made_software(data: &Path, release: &Release) -> Vec<u8> {
    let key = "HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion";
    let mut text = format!(
        "Windows Registry Editor Version 5.00\n[{key}]\n\"CurrentBuildNumber\"=\"{}\"\n\"CurrentVersion\"=\"{}\"\n",
        release.build,
        if release.major < 10 { format!("{}.{}", release.major, release.minor) } else { "6.3".into() },
    );
    if release.major >= 10 {
        text.push_str("\"CurrentMajorVersionNumber\"=dword:0000000a\n\"CurrentMinorVersionNumber\"=dword:00000000\n");
    }
    text.push_str(
        "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion]\n\"DevicePath\"=hex(2):25,00,53,00,79,00,73,00,\
         74,00,65,00,6d,00,52,00,6f,00,6f,00,74,00,25,00,5c,00,69,00,6e,00,66,00,00,00\n\
         [HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Run]\n\"VMware User Process\"=\"vmtoolsd\"\n",
    );
    let mut hive = hive(data, "hives/odd/EmptyHive");
    let mut edit = hive.edit(Filetime(1)).unwrap();
    let sections = reg_text::parse(text.as_bytes()).unwrap();
    reg_text::merge(&mut edit, &sections, &KeyPath::from("HKLM\\SOFTWARE")).unwrap();
    edit.commit().unwrap();
    hive.to_file(Filetime(1))
}

/// virtio-win's storage and network drivers for 7 and 10, stamped as its build does it; their programs are headers only.
pub(crate) fn virtio_library(folder: &Path) -> Option<Library> {
    let files = group()?;
    let templates = [
        ("viostor", "kvm-guest-drivers-windows/viostor/viostor.inx"),
        ("vioscsi", "kvm-guest-drivers-windows/vioscsi/vioscsi.inx"),
        ("netkvm", "kvm-guest-drivers-windows/NetKVM/netkvm-base.txt"),
        ("balloon", "kvm-guest-drivers-windows/Balloon/sys/balloon.inx"),
    ];
    let mut medium = MemoryTree::new();
    for (name, path) in templates {
        let template = String::from_utf8_lossy(&files[path]).into_owned();
        for (release, version, first) in [("w7", "6.1", 61), ("w10", "10.0", 100)] {
            for architecture in [Architecture::X86, Architecture::Amd64] {
                let decoration = format!("NT{architecture}.{version}");
                let stamp = format!("DriverVer=07/22/2026,{first}.6.101.58000 ; ");
                let inf = stamped(&template, "12").replace("NT$ARCH$", &decoration).replace("DriverVer=", &stamp);
                let place = format!("/{name}/{release}/{architecture}/{name}");
                let content = program(architecture, &format!("{name} {release}"));
                medium = medium
                    .with(&format!("{place}.inf"), inf)
                    .with(&format!("{place}.sys"), &content)
                    .with(&format!("/{name}/{release}/{architecture}/netkvmp.exe"), &content)
                    .with(&format!("/{name}/{release}/{architecture}/blnsvr.exe"), &content);
            }
        }
    }
    let library = Library::new(folder);
    library.add(&medium, None, "virtio-win", "templates").unwrap();
    Some(library)
}

/// What the tests bring into a guest.
pub(crate) fn additions(library: Library) -> Additions {
    let script = Script { name: "10-hello.cmd".into(), contents: b"echo hello\r\n".to_vec(), timeout_s: 60 };
    Additions {
        drivers: Some(library),
        hypervisors: Hypervisor::ALL.to_vec(),
        first_boot: Some(FirstBoot {
            programs: FirstBoot::PROGRAMS.map(|(built, name)| (built, program(built, name))).into(),
            nonce: "n-1".into(),
            scripts: vec![script],
        }),
        ..Additions::default()
    }
}

//! Whole boot images, from the kernel of the cache and with stand-ins for our own programs: what is in them is looked at
//! from outside, and none is started.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bootimage::{
    BootImage, BuildOptions, KernelChoice, Network, Packages, Programs, build_boot_image, devices, inspect,
};

/// Any static program does: this one.
fn programs(folder: &Path) -> Programs {
    let own = std::env::current_exe().unwrap();
    for name in ["vconverter-bootenv", "vconverter-agent"] {
        fs::copy(&own, folder.join(name)).unwrap();
    }
    Programs::in_folder(folder)
}

fn options(folder: &Path, output: PathBuf) -> BuildOptions {
    BuildOptions {
        output,
        controller: Some("192.0.2.10:7770".into()),
        ca_fingerprint: None,
        network: Network::default(),
        keymap: None,
        ssh_key: None,
        kernel: KernelChoice::Cached,
        programs: programs(folder),
        firmware: bootimage::FirmwareSources { folders: Vec::new(), packages: Packages::None },
        drivers: Vec::new(),
        without: Vec::new(),
        devices: None,
    }
}

fn build(options: &BuildOptions) -> BootImage {
    build_boot_image(options, &mut |line| println!("{line}")).unwrap()
}

/// Path below `folder` → hash of the content, of every file.
fn hashes(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                let hash = blake3::hash(&fs::read(&entry).unwrap()).to_hex().to_string();
                found.insert(entry.strip_prefix(folder).unwrap().to_owned(), hash);
            }
        }
    }
    found
}

fn megabytes(path: &Path) -> f64 {
    fs::metadata(path).unwrap().len() as f64 / 1e6
}

#[test]
fn the_same_inputs_give_the_same_bytes_with_a_driver_for_each_device_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let firmware = folder.path().join("firmware/bnx2");
    fs::create_dir_all(&firmware).unwrap();
    fs::write(firmware.join("bnx2-mips-09-6.2.1b.fw"), b"not the real one").unwrap();
    let mut options = options(folder.path(), folder.path().join("one"));
    options.firmware.folders.push(folder.path().join("firmware"));
    options.keymap = Some("de-latin1".into());
    options.ssh_key = Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ admin@example.org".into());
    let image = build(&options);
    options.output = folder.path().join("another/place");
    build(&options);
    let (one, two) = (hashes(&folder.path().join("one")), hashes(&options.output));
    let files: Vec<String> = one.keys().map(|path| path.display().to_string()).collect();
    println!("{}", files.join(" "));
    assert_eq!(one, two);
    for file in [
        "vconverter.iso",
        "initramfs.img",
        "vmlinuz",
        "configuration.img",
        "netboot/undionly.kpxe",
        "netboot/boot.efi",
        "netboot/vmlinuz",
        "netboot/initramfs.img",
        "netboot/shimx64.efi",
        "netboot/grubx64.efi",
    ] {
        assert!(one.contains_key(Path::new(file)), "{file}");
    }

    let iso = image.media.unwrap().iso;
    println!("ISO {:.1} MB, initramfs {:.1} MB", megabytes(&iso), megabytes(&image.initramfs));
    assert!(megabytes(&iso) <= 80.0, "{}", megabytes(&iso));
    let inspection = inspect(&iso).unwrap();
    assert_eq!((&inspection.kernel_release, inspection.modules), (&image.kernel_release, image.modules));
    assert_eq!(inspection.starts_under_secure_boot(), Some(true), "{:?}", inspection.secure_boot);
    let configuration = inspection.configuration.as_ref().unwrap();
    for given in ["192.0.2.10:7770", "keymap = \"de-latin1\"", "rescue_key = \"ssh-ed25519 AAAA"] {
        assert!(configuration.contains(given), "{given} in {configuration}");
    }
    assert!(inspection.rescue_shell);
    let mut served = 0;
    for device in devices() {
        let support = inspection.supports(device.id);
        let modules: Vec<&str> = support.modules.iter().filter(|m| m.present).map(|m| m.module.as_str()).collect();
        assert!(modules.contains(&device.module), "{}: expected {}, found {modules:?}", device.id, device.module);
        served += 1;
    }
    println!("{served} devices of the table are served by the module that it names");
    assert!(served >= 150);

    let works = |id: &str| inspection.supports(id.parse().unwrap()).is_supported();
    assert!(works("14e4:1639"), "its firmware came from the folder");
    assert!(!works("14e4:168e"), "bnx2x has no firmware here");
    assert!(!works("1077:8070"), "qede needs qed, which has no firmware here");
    assert!(inspection.missing_firmware["bnx2/bnx2-mips-06-6.2.3.fw"].contains("bnx2"));
    let missing = image.firmware.iter().filter(|file| file.from.is_none()).count();
    assert_eq!(missing, inspection.missing_firmware.len());
}

#[test]
fn a_boot_image_for_one_machine_has_its_drivers_and_not_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), folder.path().join("push"));
    // The class of an AHCI controller, an e1000e, a PERC H700, a USB 3 controller.
    options.devices = Some(
        [
            "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
            "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
            "pci:v00001000d00000079sv00001028sd00001F16bc01sc04i00",
            "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30",
        ]
        .map(str::to_owned)
        .to_vec(),
    );
    let image = build(&options);
    let size = megabytes(&image.vmlinuz) + megabytes(&image.initramfs);
    println!("kernel and initramfs: {size:.1} MB, {} modules", image.modules);
    assert!(!inspect(&options.output).unwrap().rescue_shell, "nobody asked for one");
    assert!(size <= 40.0 && image.modules < 120 && image.media.is_none());
    let inspection = inspect(&options.output).unwrap();
    assert!(inspection.configuration.as_ref().unwrap().contains("192.0.2.10:7770"));
    let works = |id: &str| inspection.supports(id.parse().unwrap()).is_supported();
    assert!(works("8086:10d3") && works("1000:0079") && !works("14e4:1657") && !works("1000:0072"));
    assert_eq!(inspection.starts_under_secure_boot(), None);
}

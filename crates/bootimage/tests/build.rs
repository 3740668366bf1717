//! Whole boot images, from the kernel of the cache and with stand-ins for our own programs: what is in them is looked at
//! from outside, and none is started.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bootimage::{
    BootImage, BuildOptions, KernelChoice, Network, Packages, Programs, PushOptions, build_boot_image, build_push,
    devices, inspect,
};
use machine::push::NetworkIdentity;

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

/// What Linux says of a machine's devices: those that every PC has, and its own.
fn modaliases(own: &[&str]) -> Vec<String> {
    let every = [
        "acpi:PNP0303:",
        "cpu:type:x86,ven0000fam0006mod003A:feature:,0000,0001,0002,0003,0004,0005,0006,0007,0008,0009,000D,0081,0089",
        "dmi:bvnSeaBIOS:bvr1.16.2:bd04/01/2014:svnQEMU:pnStandardPC:pvr1:cvnQEMU:ct1:cvrpc:",
        "input:b0011v0001p0001eAB41-e0,1,4,11,14,k71,72,ramlsfw",
        "pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00",
        "pci:v00008086d00002668sv00001AF4sd00001100bc04sc03i00",
        "platform:pcspkr",
        "scsi:t-0x00",
        "serio:ty06pr00id00ex00",
    ];
    every.iter().chain(own).map(|&alias| alias.to_owned()).collect()
}

fn push_options(folder: &Path, output: PathBuf, modaliases: Vec<String>, drivers: &[&str]) -> PushOptions {
    PushOptions {
        modaliases,
        drivers: drivers.iter().map(|&name| name.to_owned()).collect(),
        controller: "192.0.2.10:7770".into(),
        ca_fingerprint: "ab".repeat(32),
        network: NetworkIdentity::default(),
        token: "vct_of-nobody".into(),
        task: "task-7".into(),
        contact_seconds: 900,
        watchdog_seconds: Some(300),
        kernel: KernelChoice::Cached,
        programs: programs(folder),
        firmware: bootimage::FirmwareSources { folders: Vec::new(), packages: Packages::None },
        driver_files: Vec::new(),
        output,
    }
}

/// What a push is for, whatever the machine: to undo, to get the machine back, and to find its controller.
const ALWAYS: [&str; 20] = [
    "8021q",
    "bonding",
    "dm_mod",
    "efivarfs",
    "ext4",
    "hpwdt",
    "i6300esb",
    "iTCO_wdt",
    "ipmi_devintf",
    "ipmi_si",
    "md_mod",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "sd_mod",
    "sp5100_tco",
    "vfat",
    "wdat_wdt",
    "xfs",
];

#[test]
fn a_push_fits_an_esp_and_has_the_drivers_of_its_machine() {
    let machines: [(&str, &[&str], &[&str]); 6] = [
        (
            "q35, ahci, e1000e",
            &[
                "pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                "pci:v00008086d00002930sv00001AF4sd00001100bc0Csc05i00",
                "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
            ],
            &["ahci", "e1000e", "lpc_ich", "i2c_i801"],
        ),
        (
            "pc, ide, e1000",
            &[
                "pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
            ],
            &["ata_piix", "e1000"],
        ),
        (
            "virtio",
            &[
                "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00",
                "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
                "virtio:d00000002v00001AF4",
                "virtio:d00000001v00001AF4",
            ],
            &["virtio_blk", "virtio_net", "virtio_pci"],
        ),
        (
            "megaraid, igb",
            &[
                "pci:v00001000d0000005Bsv00001028sd00001F38bc01sc04i00",
                "pci:v00008086d00001521sv00001028sd0000FF9Abc02sc00i00",
            ],
            &["megaraid_sas", "igb"],
        ),
        (
            "mpt3sas, ixgbe",
            &[
                "pci:v00001000d00000097sv00001000sd00003090bc01sc07i00",
                "pci:v00008086d000010FBsv00008086sd00000003bc02sc00i00",
            ],
            &["mpt3sas", "ixgbe"],
        ),
        (
            "nvme, tg3, usb",
            &[
                "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02",
                "pci:v000014E4d0000165Fsv00001028sd000004F7bc02sc00i00",
                "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30",
            ],
            &["nvme", "tg3", "xhci_pci"],
        ),
    ];
    for (name, own, drivers) in machines {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("push");
        let options = push_options(folder.path(), output.clone(), modaliases(own), drivers);
        let began = std::time::Instant::now();
        let push = build_push(&options, &mut |_| {}).unwrap();
        let first = began.elapsed();
        let again = build_push(&options, &mut |line| println!("  {line}")).unwrap();
        println!(
            "{name}: {:.1} MB, initramfs {:.1} MB, first {first:?}, again {:?}",
            push.total_bytes as f64 / 1e6,
            megabytes(&output.join("initramfs.img")),
            began.elapsed() - first
        );
        assert_eq!(push, again);
        assert!(push.total_bytes <= 40_000_000, "{} bytes", push.total_bytes);
        assert_eq!((&push.missing, &push.unserved), (&Vec::new(), &Vec::new()));
        let names: Vec<&str> = push.files.iter().map(|(name, _, _)| name.as_str()).collect();
        let expected = ["vmlinuz", "initramfs.img", "configuration.img", "shimx64.efi", "grubx64.efi", "mmx64.efi"];
        assert_eq!(names, expected);
        let inspection = inspect(&output).unwrap();
        for module in ALWAYS.iter().chain(drivers) {
            assert!(inspection.has_module(module), "{name}: {module}");
        }
        for module in ["snd_intel8x0", "bochs", "drm", "kvm", "ipmi_watchdog", "softdog", "hid_logitech", "mlx5_core"] {
            assert!(!inspection.has_module(module), "{name}: {module} is of no use there");
        }
    }
}

#[test]
fn a_push_keeps_its_secret_in_one_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("push");
    let own = ["pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"];
    let options = push_options(folder.path(), output.clone(), modaliases(&own), &["ahci"]);
    let push = build_push(&options, &mut |_| {}).unwrap();
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for (name, path, size) in &push.files {
        assert_eq!(fs::metadata(path).unwrap().len(), *size);
        // The initramfs is looked at below; in its programs, which are this test, the texts are.
        for text in ["vct_of-nobody", "192.0.2.10:7770", "task-7"].iter().filter(|_| name != "initramfs.img") {
            let is_configuration = name == "configuration.img";
            assert_eq!(contains(&fs::read(path).unwrap(), text), is_configuration, "{text} in {name}");
        }
    }
    let secret = fs::metadata(output.join("configuration.img")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    let archive = fs::read(output.join("configuration.img")).unwrap();
    for text in ["contact_seconds = 900", "watchdog_seconds = 300", "vconverter.token"] {
        assert!(contains(&archive, text), "{text}");
    }
    let left: Vec<_> = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), push.files.len(), "{left:?}");
    let other = PushOptions { token: "vct_another".into(), ..options.clone() };
    let initramfs = fs::read(output.join("initramfs.img")).unwrap();
    build_push(&other, &mut |_| {}).unwrap();
    assert_eq!(initramfs, fs::read(output.join("initramfs.img")).unwrap(), "it depends on no secret");
    for token in ["", "a b", "a\nb"] {
        let wrong = PushOptions { token: token.into(), ..options.clone() };
        assert!(build_push(&wrong, &mut |_| {}).map(drop).unwrap_err().context.starts_with("token: expected"));
    }
}

#[test]
fn what_a_push_cannot_do_without_is_told_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let own = [
        // A disk controller that no driver knows, such an Ethernet card, and one whose firmware is not here.
        "pci:v0000DEADd00000001sv00000000sd00000000bc01sc04i00",
        "pci:v0000DEADd00000002sv00000000sd00000000bc02sc00i00",
        "pci:v000014E4d00001639sv00001028sd0000028Cbc02sc00i00",
    ];
    let drivers = ["hpvsa", "bnx2", "cciss", "virtio-blk"];
    let options = push_options(folder.path(), folder.path().join("push"), modaliases(&own), &drivers);
    let push = build_push(&options, &mut |_| {}).unwrap();
    println!("missing {:#?}\nunserved {:#?}", push.missing, push.unserved);
    let [driver, disks, firmware] = push.missing.as_slice() else { panic!("{:?}", push.missing) };
    assert!(driver.starts_with("hpvsa: Linux "), "{driver}");
    assert!(disks.contains("DEADd00000001") && disks.ends_with("disk controller"), "{disks}");
    assert!(firmware.starts_with("bnx2: its firmware bnx2/"), "{firmware}");
    assert!(push.unserved.len() == 1 && push.unserved[0].ends_with("network card"), "{:?}", push.unserved);
    let inspection = inspect(&folder.path().join("push")).unwrap();
    assert!(inspection.has_module("hpsa") && inspection.has_module("virtio_blk"), "by their names here");
}

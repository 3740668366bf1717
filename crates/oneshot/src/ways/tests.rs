use super::*;
use crate::picture::{GRUB_CONFIGURATION, Picture};

/// Why a way is refused on a picture.
fn refused(picture: &Picture, way: Way) -> Vec<String> {
    let survey = survey(&picture.system());
    let finding = survey.ways.into_iter().find(|finding| finding.way == way).unwrap();
    println!("{way}: {:?} {:?}", finding.refused, finding.notes);
    assert!(way != Way::Kexec || finding.room.is_none());
    finding.refused
}

/// One reason with these words in it, and no other.
fn refused_for(picture: &Picture, way: Way, words: &str) {
    let refused = refused(picture, way);
    assert!(refused.len() == 1 && refused[0].contains(words), "{way}: expected {words:?}, found {refused:?}");
}

#[test]
fn this_machine_is_surveyed_without_a_change() {
    let state = tempfile::tempdir().unwrap();
    let survey = survey(&System::new(state.path().join("state")));
    println!("{survey:#?}");
    assert_eq!(survey.ways.iter().map(|finding| finding.way).collect::<Vec<_>>(), Way::ALL);
    assert!(!survey.installed && !state.path().join("state").exists());
}

#[test]
fn ways_that_fit_are_not_refused() {
    for way in Way::ALL {
        assert_eq!(refused(&Picture::of_way(way), way), Vec::<String>::new(), "{way}");
    }
    // Where GRUB was started by UEFI firmware.
    assert_eq!(refused(&Picture::uefi(), Way::Grub), Vec::<String>::new());
}

#[test]
fn surveying_changes_nothing() {
    for way in Way::ALL {
        let picture = Picture::of_way(way);
        let before = picture.tree();
        survey(&picture.system());
        assert_eq!(picture.tree(), before);
        assert!(!picture.system().state().exists());
    }
}

#[test]
fn boot_next_is_refused_for_what_it_cannot_do() {
    let way = Way::BootNext;
    let uefi = Picture::uefi;
    refused_for(&Picture::bios(), way, "not started by UEFI");
    let picture = uefi();
    picture.write("sys/firmware/efi/fw_platform_size", "32\n");
    refused_for(&picture, way, "has 32 bits");
    std::fs::remove_file(picture.root().join("sys/firmware/efi/fw_platform_size")).unwrap();
    for (release, is_refused) in
        [("3.10.0-1160.el7.x86_64\n", false), ("3.16.0-4-amd64\n", true), ("6.1.0-18-amd64\n", true)]
    {
        picture.write("proc/sys/kernel/osrelease", release);
        assert_eq!(!refused(&picture, way).is_empty(), is_refused, "{release}");
    }
    let picture = uefi();
    picture.mounts("ro", "rw");
    refused_for(&picture, way, "/boot/efi (sda1) is mounted read-only");
    let picture = uefi();
    picture.write("boot/efi/boot/grub/grub.cfg", "theirs");
    refused_for(&picture, way, "/boot/grub/grub.cfg");
    let picture = uefi();
    picture.write("boot/efi/EFI/vconverter/shimx64.efi", "left");
    refused_for(&picture, way, "an earlier push");
    let picture = uefi();
    picture.write("run/systemd/container", "lxc\n");
    refused_for(&picture, way, "container (lxc)");
    let mounts = picture_mounts(&uefi(), "efivarfs efivarfs rw", "x x rw");
    refused_for(&mounts, way, "efivarfs is not mounted");
    let variables_of = |picture: &Picture, name: &str, value: &[u8]| {
        let system = picture.system();
        Variables::of(&system).write(name, value).unwrap();
    };
    let picture = uefi();
    variables_of(&picture, &efi::global("BootNext"), &[7, 0, 0, 0, 3, 0]);
    refused_for(&picture, way, "BootNext is set already");
    let picture = uefi();
    variables_of(&picture, &efi::global("SecureBoot"), &[6, 0, 0, 0, 1]);
    refused_for(&picture, way, "does not trust");
    picture.write(
        "sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f",
        "1234..Microsoft Corporation UEFI CA 2011..",
    );
    assert_eq!(refused(&picture, way), Vec::<String>::new());
    // One half of a mirror.
    let picture = uefi();
    let text = picture.read("proc/self/mountinfo").replace("8:1 / /boot/efi", "9:0 / /boot/efi");
    picture.write("proc/self/mountinfo", &text);
    picture.write("sys/dev/block/9:0/x", "");
    let array = picture.root().join("sys/devices/virtual/block/md0");
    std::fs::create_dir_all(&array).unwrap();
    std::fs::remove_dir_all(picture.root().join("sys/dev/block/9:0")).unwrap();
    std::os::unix::fs::symlink(&array, picture.root().join("sys/dev/block/9:0")).unwrap();
    refused_for(&picture, way, "md0 is an MD array");
}

fn picture_mounts(picture: &Picture, from: &str, to: &str) -> Picture {
    let text = picture.read("proc/self/mountinfo").replace(from, to).replace("- efivarfs", "- x");
    let changed = Picture::uefi();
    changed.write("proc/self/mountinfo", &text);
    changed
}

#[test]
fn grub_is_refused_where_it_is_not_proven() {
    let way = Way::Grub;
    let with = |from: &str, to: &str| {
        let picture = Picture::bios();
        let text = GRUB_CONFIGURATION.replace(from, to);
        assert_ne!(text, GRUB_CONFIGURATION);
        picture.write("boot/grub/grub.cfg", &text);
        picture
    };
    refused_for(&with("save_env next_entry", ""), way, "does not clear next_entry");
    refused_for(&with("   set default=\"${next_entry}\"", ""), way, "does not look at next_entry");
    refused_for(&with("  load_env", "#  load_env"), way, "does not load the environment block");
    refused_for(&with("/custom.cfg\n", "/other.cfg\n"), way, "does not read custom.cfg");
    refused_for(&with("set have_grubenv=true", "set check_signatures=enforce"), way, "signatures");
    let endless = GRUB_CONFIGURATION.replace("timeout=30", "timeout=-1").replace("timeout=5", "timeout=-1");
    let picture = Picture::bios();
    picture.write("boot/grub/grub.cfg", &endless);
    refused_for(&picture, way, "waits at its menu");
    let picture = Picture::bios();
    picture.write("dev/sda", "no boot code");
    refused_for(&picture, way, "no disk's boot sector is GRUB's");
    let picture = Picture::bios();
    picture.write("boot/grub/grubenv", "# GRUB Environment Block\n");
    refused_for_any(&picture, way, "expected 1024 bytes");
    let picture = Picture::bios();
    std::fs::rename(picture.root().join("boot/grub/grubenv"), picture.root().join("boot/env")).unwrap();
    std::os::unix::fs::symlink("../env", picture.root().join("boot/grub/grubenv")).unwrap();
    refused_for(&picture, way, "no plain file");
    let picture = Picture::bios();
    let env = picture.root().join("boot/grub/grubenv");
    let set = std::process::Command::new("grub-editenv").arg(&env).args(["set", "next_entry=theirs"]).status().unwrap();
    assert!(set.success());
    refused_for(&picture, way, "next_entry is set already");
    for (from, to, words) in [
        ("- ext4 /dev/sda2", "- btrfs /dev/sda2", "of kind btrfs"),
        ("8:2 / /boot", "8:2 /sub /boot", "only the folder /sub"),
        ("8:2 / /boot", "253:0 / /boot", "not in sysfs"),
        ("ext4 /dev/sda2 rw", "ext4 /dev/sda2 rw,data=journal", "journal"),
    ] {
        let picture = Picture::bios();
        let text = picture.read("proc/self/mountinfo");
        let text =
            text.lines().map(|line| if line.contains(" /boot ") { line.replace(from, to) } else { line.to_owned() });
        picture.write("proc/self/mountinfo", &(text.collect::<Vec<_>>().join("\n") + "\n"));
        refused_for(&picture, way, words);
    }
    // Another loader.
    let picture = Picture::uefi();
    let system = picture.system();
    let drive = efi::HardDrive { number: 1, start: 2048, blocks: 131_072, signature: [0x5a; 16], is_gpt: true };
    let option = efi::load_option("refind", &drive, "\\EFI\\refind\\refind_x64.efi");
    Variables::of(&system).write(&efi::boot_entry(0), &[&efi::ATTRIBUTES[..], &option].concat()).unwrap();
    refused_for(&picture, way, "refind_x64.efi");
}

fn refused_for_any(picture: &Picture, way: Way, words: &str) {
    let refused = refused(picture, way);
    assert!(refused.iter().any(|why| why.contains(words)), "{way}: expected {words:?}, found {refused:?}");
}

#[test]
fn systemd_boot_is_refused_where_it_is_another_loader() {
    let way = Way::SystemdBoot;
    refused_for(&Picture::uefi(), way, "not systemd-boot");
    let picture = Picture::systemd_boot();
    let system = picture.system();
    let features = efi::loader("LoaderFeatures");
    Variables::of(&system).write(&features, &[6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    refused_for(&picture, way, "LoaderEntryOneShot");
    let picture = Picture::systemd_boot();
    std::fs::remove_dir_all(picture.root().join("boot/efi/loader")).unwrap();
    refused_for(&picture, way, "no folder loader/entries");
}

#[test]
fn kexec_is_refused_where_nothing_would_come_of_it() {
    let way = Way::Kexec;
    let with = |path: &str, text: &str| {
        let picture = Picture::of_way(way);
        picture.write(path, text);
        picture
    };
    refused_for_any(&Picture::bios(), way, "the kernel has no kexec");
    refused_for_any(&Picture::bios(), way, "systemd is not the init");
    refused_for(&with("sys/kernel/kexec_loaded", "1\n"), way, "somebody else loaded");
    refused_for(&with("proc/sys/kernel/kexec_load_disabled", "1\n"), way, "switched off");
    let picture = Picture::of_way(way);
    std::fs::remove_file(picture.root().join("usr/sbin/kexec")).unwrap();
    refused_for(&picture, way, "older than 246");
    let survey = survey(&with("sys/kernel/security/lockdown", "none [integrity] confidentiality\n").system());
    assert!(survey.ways[1].refused.is_empty() && survey.ways[1].notes[0].contains("trusts the signer"));
}

#[test]
fn hardware_is_found_below_what_it_is_made_of() {
    let picture = Picture::bios();
    let disk = "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";
    picture.write("sys/module/sd_mod/x", "");
    picture.write("sys/module/ahci/x", "");
    let link = |path: &str, target: &str| {
        let path = picture.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(picture.root().join(target), path).unwrap();
    };
    link(&format!("{disk}/driver/module"), "sys/module/sd_mod");
    link("sys/devices/pci0000:00/0000:00:1f.2/driver/module", "sys/module/ahci");
    link("sys/devices/virtual/block/dm-0/slaves/sda2", &format!("{disk}/block/sda/sda2"));
    link("sys/dev/block/253:0", "sys/devices/virtual/block/dm-0");
    picture.write("sys/bus/pci/devices/0000:00:1f.2/modalias", "pci:v00008086d00002922\n");
    picture.write("sys/bus/scsi/devices/0:0:0:0/modalias", "scsi:t-0x00\n");
    picture.write("sys/bus/scsi/devices/0:0:1:0/modalias", "scsi:t-0x00\n");
    let text = picture.read("proc/self/mountinfo").replace("0:22 / / rw - tmpfs", "253:0 / / rw - ext4");
    picture.write("proc/self/mountinfo", &text);
    let survey = survey(&picture.system());
    assert_eq!(survey.drivers, ["ahci", "sd_mod"]);
    assert_eq!(survey.modaliases, ["pci:v00008086d00002922", "scsi:t-0x00"]);
    assert!(survey.installed, "the state is on a disk");
}

proptest::proptest! {
    #[test]
    fn any_grub_configuration_parses_without_panic(text in "((set|source|load_env|save_env|next_entry|timeout=|[$ \"\\n;{}])){0,40}", any: Vec<u8>) {
        grub::fuzz_grub_configuration(text.as_bytes());
        grub::fuzz_grub_configuration(&any);
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::efi::Variables;
use crate::picture::{Picture, order};

const WAYS: [Way; 4] = Way::ALL;

fn check_script(path: &Path) {
    let output = Command::new("grub-script-check").arg(path).output().expect("grub-script-check (grub-common)");
    assert!(output.status.success(), "{output:?}\n{}", std::fs::read_to_string(path).unwrap());
}

/// The record as the boot image finds it.
fn record_in(archive: &[u8]) -> Record {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    std::fs::write(&path, archive).unwrap();
    let output =
        Command::new("cpio").args(["-i", "--quiet", "-F"]).arg(&path).current_dir(&folder).output().expect("cpio");
    assert!(output.status.success(), "{output:?}");
    record::parse_record(&std::fs::read(folder.path().join(RECORD_NAME)).unwrap()).unwrap()
}

/// Undoes as the boot image does it.
fn restore(picture: &Picture, record: &Record) -> BootPathReport {
    let system = picture.system();
    let mounts = mounts::load(&system);
    undo::undo(
        &system,
        record,
        &mut |filesystem| located::find_mounted(&system, &mounts, filesystem),
        Moment::BootImage,
    )
}

#[test]
fn every_way_is_placed_armed_and_withdrawn() {
    for way in WAYS {
        let picture = Picture::of_way(way);
        let (system, staged, before) = (picture.system(), picture.stage(), picture.tree());
        let done = place(&system, &order(way), &staged).unwrap();
        println!("{way}: {done:?}");
        assert!(place(&system, &order(way), &staged).unwrap_err().chain().contains("already"));
        let restart = arm(&system).unwrap();
        assert!(arm(&system).unwrap_err().chain().contains("armed already"));
        assert_eq!(restart == Restart::Kexec, way == Way::Kexec);
        assert_eq!(picture.tree() == before, way == Way::Kexec, "{way}");
        let report = withdraw(&system).unwrap().unwrap();
        println!("{report:#?}");
        assert_eq!((report.way, report.differences), (Some(way), Vec::new()), "{way}");
        assert_eq!(picture.tree(), before, "{way}");
        let again = withdraw(&system).unwrap().unwrap();
        assert_eq!((again.undone, again.differences), (Vec::new(), Vec::new()), "{way}");
        forget(&system).unwrap();
        assert_eq!(withdraw(&system).unwrap(), None);
        assert!(arm(&system).unwrap_err().chain().contains("no boot image"));
    }
}

#[test]
fn boot_next_has_its_own_chain_on_the_esp() {
    let picture = Picture::uefi();
    let (system, before) = (picture.system(), picture.tree());
    place(&system, &order(Way::BootNext), &picture.stage()).unwrap();
    let esp = picture.root().join("boot/efi/EFI/vconverter");
    check_script(&esp.join("grub.cfg"));
    assert!(picture.read("boot/efi/EFI/vconverter/grub.cfg").contains("vconverter.boot=push"));
    assert_eq!(std::fs::read(esp.join("initramfs.img")).unwrap(), b"archive\0", "a multiple of four");
    let variables = Variables::of(&system);
    assert_eq!(variables.value(&efi::global("BootNext")), None, "placing does not arm");
    arm(&system).unwrap();
    // BootOrder names 0 and 3.
    assert_eq!(variables.value(&efi::global("BootNext")), Some(vec![1, 0]));
    let (description, file) = efi::parse_load_option(&variables.value(&efi::boot_entry(1)).unwrap()).unwrap();
    assert_eq!(description, undo::ENTRY_DESCRIPTION);
    assert_eq!(file.as_deref(), Some("\\EFI\\vconverter\\shimx64.efi"));
    let record = record_in(&std::fs::read(esp.join("record.img")).unwrap());
    // The firmware takes BootNext, and enters what it started into the order.
    variables.remove(&efi::global("BootNext")).unwrap();
    variables.write(&efi::global("BootOrder"), &[7, 0, 0, 0, 1, 0, 0, 0, 3, 0]).unwrap();
    let report = restore(&picture, &record);
    println!("{report:#?}");
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!(picture.tree(), before);
    let back = withdraw(&system).unwrap().unwrap();
    assert_eq!((back.undone, back.differences), (Vec::new(), Vec::new()));
}

#[test]
fn grub_takes_its_entry_once() {
    let picture = Picture::bios();
    let (system, before) = (picture.system(), picture.tree());
    place(&system, &order(Way::Grub), &picture.stage()).unwrap();
    let custom = picture.root().join("boot/grub/custom.cfg");
    check_script(&custom);
    println!("{}", picture.read("boot/grub/custom.cfg"));
    assert!(picture.read("boot/grub/custom.cfg").starts_with("# mine, without an end of line\n### BEGIN"));
    arm(&system).unwrap();
    let environment = picture.root().join("boot/grub/grubenv");
    let editenv = |arguments: &[&str]| {
        let output = Command::new("grub-editenv").arg(&environment).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(editenv(&["list"]).contains("next_entry=vconverter-boot-image\n"));
    let record = record_in(&std::fs::read(picture.root().join("boot/vconverter/record.img")).unwrap());
    // As grub.cfg does it.
    editenv(&["set", "next_entry="]);
    let report = restore(&picture, &record);
    println!("{report:#?}");
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!(picture.tree(), before);
}

#[test]
fn grub_finds_on_the_filesystem_what_its_entry_names() {
    let picture = Picture::bios();
    place(&picture.system(), &order(Way::Grub), &picture.stage()).unwrap();
    let (boot, image) = (picture.root().join("boot"), picture.root().join("image"));
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let made = Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).args([&boot, &image]).output().expect("mke2fs");
    assert!(made.status.success(), "{made:?}");
    let custom = picture.read("boot/grub/custom.cfg");
    let named = custom.lines().filter(|line| line.contains("if linux ") || line.contains("if initrd "));
    let named: Vec<&str> = named.flat_map(|line| line.split([' ', ';'])).filter(|word| word.starts_with('/')).collect();
    println!("{named:?}");
    assert_eq!(named.len(), 1 + ARCHIVES.len());
    for path in named {
        let read =
            Command::new("grub-fstest").arg(&image).args(["cat", path]).output().expect("grub-fstest (grub-common)");
        assert!(read.status.success(), "{path}: {read:?}");
        assert_eq!(read.stdout, std::fs::read(boot.join(&path[1..])).unwrap(), "{path}");
    }
}

#[test]
fn systemd_boot_gets_an_entry_and_one_shot() {
    let picture = Picture::systemd_boot();
    let (system, before) = (picture.system(), picture.tree());
    place(&system, &order(Way::SystemdBoot), &picture.stage()).unwrap();
    let entry = picture.read("boot/efi/loader/entries/vconverter-boot-image.conf");
    println!("{entry}");
    for line in entry.lines().filter(|line| line.contains(" /")) {
        let file = line.split(' ').nth(1).unwrap();
        assert!(picture.root().join("boot/efi").join(&file[1..]).exists(), "{line}");
    }
    arm(&system).unwrap();
    let variables = Variables::of(&system);
    let one_shot = efi::loader("LoaderEntryOneShot");
    assert_eq!(
        variables.value(&one_shot).map(|value| efi::text(&value)).as_deref(),
        Some("vconverter-boot-image.conf")
    );
    // The loader takes it, and remembers what it started.
    let ours = variables.read(&one_shot).unwrap().unwrap();
    variables.remove(&one_shot).unwrap();
    variables.write(&efi::loader("LoaderEntryLastBooted"), &ours).unwrap();
    let record = record_in(&std::fs::read(picture.root().join("boot/efi/vconverter/record.img")).unwrap());
    assert_eq!(restore(&picture, &record).differences, Vec::<String>::new());
    assert_eq!(picture.tree(), before);
}

/// Steps that `work` takes on a system; the one with this number fails, or ends the program.
fn count(system: System, fail_at: usize, is_crash: bool) -> (System, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let system = system.with_steps(move |what| {
        if counter.fetch_add(1, Ordering::Relaxed) != fail_at {
            return Ok(());
        }
        assert!(!is_crash, "power cut at: {what}");
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    });
    (system, taken)
}

#[test]
fn whatever_step_of_placing_fails_all_is_undone() {
    for way in WAYS {
        let picture = Picture::of_way(way);
        let (staged, before) = (picture.stage(), picture.tree());
        let mut fail_at = 0;
        loop {
            let (system, taken) = count(picture.system(), fail_at, false);
            let result = place(&system, &order(way), &staged);
            if taken.load(Ordering::Relaxed) <= fail_at {
                result.unwrap();
                break;
            }
            let error = result.unwrap_err().chain();
            assert_eq!(picture.tree(), before, "{way} step {fail_at}: {error}");
            assert!(error.contains("No space left"), "{error}");
            assert!(error.contains("everything was undone"), "{way} step {fail_at}: {error}");
            assert_eq!(withdraw(&picture.system()).unwrap(), None, "{way} step {fail_at}");
            fail_at += 1;
        }
        println!("{way}: {fail_at} steps failed");
        assert!(fail_at >= 3, "{way}");
    }
}

#[test]
fn whatever_step_of_arming_fails_all_is_undone() {
    for way in WAYS {
        let mut fail_at = 0;
        loop {
            let picture = Picture::of_way(way);
            let (staged, before) = (picture.stage(), picture.tree());
            place(&picture.system(), &order(way), &staged).unwrap();
            let (system, taken) = count(picture.system(), fail_at, false);
            let result = arm(&system);
            if taken.load(Ordering::Relaxed) <= fail_at {
                result.unwrap();
                break;
            }
            let error = result.unwrap_err().chain();
            assert_eq!(picture.tree(), before, "{way} step {fail_at}: {error}");
            assert!(error.contains("everything was undone"), "{way} step {fail_at}: {error}");
            fail_at += 1;
        }
        println!("{way}: {fail_at} steps failed");
        assert!(fail_at >= 2, "{way}");
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_nothing_that_cannot_be_undone() {
    for way in WAYS {
        let mut cut_at = 0;
        loop {
            let picture = Picture::of_way(way);
            let (staged, before) = (picture.stage(), picture.tree());
            let (system, taken) = count(picture.system(), cut_at, true);
            let result =
                catch_unwind(AssertUnwindSafe(|| place(&system, &order(way), &staged).and_then(|_| arm(&system))));
            if taken.load(Ordering::Relaxed) <= cut_at {
                result.unwrap().unwrap();
                break;
            }
            assert!(result.is_err(), "{way} step {cut_at}");
            // The machine comes up with either: its own system, or the boot image, which has the record only with its last change.
            let kept = picture.system().load_record().unwrap();
            if let Some(record) = kept.filter(|record| record.armed && cut_at % 2 == 0) {
                assert_eq!(restore(&picture, &record).differences, Vec::<String>::new(), "{way} step {cut_at}");
                assert_eq!(picture.tree(), before, "{way} step {cut_at}");
            }
            let report = withdraw(&picture.system()).unwrap().unwrap_or_default();
            assert_eq!(report.differences, Vec::<String>::new(), "{way} step {cut_at}");
            assert_eq!(picture.tree(), before, "{way} step {cut_at}");
            cut_at += 1;
        }
        println!("{way}: the power was cut at {cut_at} steps");
        assert!(cut_at >= 6, "{way}");
    }
}

#[test]
fn undoing_that_is_cut_at_any_step_goes_on_where_it_was() {
    for way in WAYS {
        let mut cut_at = 0;
        loop {
            let picture = Picture::of_way(way);
            let (staged, before) = (picture.stage(), picture.tree());
            place(&picture.system(), &order(way), &staged).unwrap();
            arm(&picture.system()).unwrap();
            let (system, taken) = count(picture.system(), cut_at, true);
            let result = catch_unwind(AssertUnwindSafe(|| withdraw(&system)));
            let is_end = taken.load(Ordering::Relaxed) <= cut_at;
            assert_eq!(result.is_ok(), is_end, "{way} step {cut_at}");
            let report = withdraw(&picture.system()).unwrap().unwrap();
            assert_eq!(report.differences, Vec::<String>::new(), "{way} step {cut_at}");
            assert_eq!(picture.tree(), before, "{way} step {cut_at}");
            if is_end {
                break;
            }
            cut_at += 1;
        }
    }
}

#[test]
fn what_an_operator_changes_between_placing_and_arming_is_kept() {
    let picture = Picture::uefi();
    let system = picture.system();
    place(&system, &order(Way::BootNext), &picture.stage()).unwrap();
    let variables = Variables::of(&system);
    let order = [7, 0, 0, 0, 3, 0, 0, 0];
    variables.write(&efi::global("BootOrder"), &order).unwrap();
    variables.write(&efi::boot_entry(1), &variables.read(&efi::boot_entry(0)).unwrap().unwrap()).unwrap();
    picture.write("boot/efi/EFI/debian/grub.cfg", "new");
    arm(&system).unwrap();
    assert_eq!(variables.value(&efi::global("BootNext")), Some(vec![2, 0]), "1 is taken now");
    let record = record_in(&std::fs::read(picture.root().join("boot/efi/EFI/vconverter/record.img")).unwrap());
    let report = restore(&picture, &record);
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!(variables.read(&efi::global("BootOrder")).unwrap().unwrap(), order);
    assert!(variables.read(&efi::boot_entry(1)).unwrap().is_some());
}

#[test]
fn secrets_are_for_root_alone() {
    for way in [Way::BootNext, Way::Grub, Way::SystemdBoot] {
        let picture = Picture::of_way(way);
        place(&picture.system(), &order(way), &picture.stage()).unwrap();
        let tree = picture.tree();
        let secrets: Vec<_> = tree.iter().filter(|(path, _)| SECRETS.iter().any(|name| path.ends_with(name))).collect();
        assert_eq!(secrets.len(), 2, "{way}");
        assert!(secrets.iter().all(|(_, (mode, _))| mode & 0o777 == 0o600), "{way}");
    }
}

#[test]
fn what_is_missing_or_too_much_is_refused_before_anything_is_changed() {
    let picture = Picture::uefi();
    let (system, staged) = (picture.system(), picture.stage());
    let before = picture.tree();
    let refused = |order: &PushOrder, part: &str| {
        let error = place(&system, order, &staged).unwrap_err().chain();
        println!("{error}");
        assert!(error.contains(part), "{error}");
        assert_eq!(picture.tree(), before);
        assert_eq!(withdraw(&system).unwrap(), None);
    };
    let quoted = PushOrder { command_line: "quiet; halt".into(), ..order(Way::BootNext) };
    refused(&quoted, "command line: at 5");
    refused(&order(Way::SystemdBoot), "not systemd-boot");
    std::fs::write(staged.join("mmx64.efi"), "").unwrap();
    refused(&order(Way::BootNext), "expected a file of");
    std::fs::write(staged.join("mmx64.efi"), "mm").unwrap();
    std::fs::remove_file(staged.join("initramfs.img")).unwrap();
    refused(&order(Way::BootNext), "initramfs.img");
    picture.mounts("ro", "rw");
    refused(&order(Way::BootNext), "mounted read-only");
}

#[test]
fn room_is_counted_in_clusters() {
    assert_eq!(needed_bytes(&[1, 4096, 4097], 4096), 4 * 4096 + MARGIN_BYTES);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_an_operator_has_there_is_there_again(
        custom in proptest::option::of("[a-z #{}\n\"]{0,200}"),
        order_of_boot in proptest::option::of(proptest::collection::vec(0_u16..9, 0..6)),
        saved in "[ -~]{0,40}",
        next_is_empty: bool,
    ) {
        for way in [Way::BootNext, Way::Grub] {
            let picture = Picture::of_way(way);
            let custom_path = picture.root().join("boot/grub/custom.cfg");
            match &custom {
                Some(text) => std::fs::write(&custom_path, text).unwrap(),
                None => std::fs::remove_file(&custom_path).unwrap(),
            }
            let path = picture.root().join("boot/grub/grubenv");
            let mut block = crate::environment_block::parse(&std::fs::read(&path).unwrap()).unwrap();
            block.set(b"saved_entry", saved.as_bytes());
            if next_is_empty {
                block.set(b"next_entry", b"");
            }
            std::fs::write(&path, block.to_bytes().unwrap()).unwrap();
            let system = picture.system();
            if way == Way::BootNext {
                let variables = Variables::of(&system);
                let name = efi::global("BootOrder");
                match &order_of_boot {
                    Some(numbers) => {
                        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
                        let value: Vec<u8> = efi::ATTRIBUTES.into_iter().chain(numbers).collect();
                        variables.write(&name, &value).unwrap();
                    }
                    None => drop(variables.remove(&name).unwrap()),
                }
            }
            let (staged, before) = (picture.stage(), picture.tree());
            place(&system, &order(way), &staged).unwrap();
            arm(&system).unwrap();
            let report = withdraw(&system).unwrap().unwrap();
            proptest::prop_assert_eq!(report.differences, Vec::<String>::new());
            proptest::prop_assert!(picture.tree() == before);
        }
    }
}

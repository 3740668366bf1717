use std::path::Path;

use machine::push::Way;

use super::*;
use crate::environment_block::EnvironmentBlock;

const LINES: &str = "### BEGIN\nmenuentry x {\n}\n### END\n";
const ENTRY: &str = "vconverter-boot-image";

/// A filesystem and variables in folders.
struct Bench {
    folder: tempfile::TempDir,
    record: Record,
}

fn filesystem() -> Filesystem {
    Filesystem { kind: "ext4".into(), uuid: "0a".into(), partition_uuid: None, bytes: 1 << 20 }
}

impl Bench {
    fn new(change: Change) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), record: Record::new("7", Way::Grub, None) };
        std::fs::create_dir_all(bench.system().path(efi::VARIABLES)).unwrap();
        std::fs::create_dir(bench.folder.path().join("fs")).unwrap();
        let mut record = bench.record;
        if let Change::Variable { name, before: Some(before), .. } = &change {
            let digest = record::digest(&record::from_hex(before).unwrap());
            record.snapshot.variables.insert(name.clone(), digest);
        }
        record.changes.push(change);
        Self { record, folder: bench.folder }
    }

    fn system(&self) -> System {
        System::with_root(self.folder.path(), self.folder.path().join("state"))
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("fs").join(path)
    }

    fn undo(&self, moment: Moment) -> BootPathReport {
        let base = self.folder.path().join("fs");
        let bytes = self.record.to_bytes().unwrap();
        let record = record::parse_record(&bytes).unwrap();
        let report = undo(&self.system(), &record, &mut |_| Ok(base.clone()), moment);
        let again = undo(&self.system(), &record, &mut |_| Ok(base.clone()), moment);
        println!("{report:?}");
        assert_eq!(again.undone, Vec::<String>::new(), "what was undone is not undone again");
        assert_eq!(again.differences.len(), report.differences.len(), "{again:?}");
        report
    }
}

fn lines(before: Option<&str>) -> Change {
    let before = before.map(|text| record::to_hex(text.as_bytes()));
    Change::Lines { filesystem: filesystem(), path: "custom.cfg".into(), before, lines: LINES.into() }
}

#[test]
fn lines_are_taken_out_and_nothing_else() {
    for (before, now, after, is_different) in [
        (Some("a\n"), Some(format!("a\n{LINES}")), Some("a\n".to_owned()), false),
        (Some("a\n"), Some("a\n".to_owned()), Some("a\n".to_owned()), false),
        // What a power cut leaves of an append.
        (Some("a\n"), Some(format!("a\n{}", &LINES[..9])), Some("a\n".to_owned()), false),
        (Some("a\n"), Some(format!("a\n{}\0\0\0", &LINES[..9])), Some("a\n".to_owned()), false),
        (None, Some(LINES.to_owned()), None, false),
        (None, Some(String::new()), None, false),
        (None, None, None, false),
        // Somebody else was there.
        (Some("a\n"), Some(format!("a\n{LINES}b\n")), Some("a\nb\n".to_owned()), true),
        (Some("a\n"), Some("b\n".to_owned()), Some("b\n".to_owned()), true),
        (Some("a\n"), None, None, true),
        (None, Some(format!("{LINES}b\n")), Some("b\n".to_owned()), true),
    ] {
        let bench = Bench::new(lines(before));
        let file = bench.file("custom.cfg");
        if let Some(now) = &now {
            std::fs::write(&file, now).unwrap();
        }
        let report = bench.undo(Moment::Live);
        assert_eq!(std::fs::read_to_string(&file).ok(), after, "{before:?} {now:?}");
        assert_eq!(!report.differences.is_empty(), is_different, "{before:?} {now:?}");
    }
}

fn block(variables: &[(&str, &str)]) -> Vec<u8> {
    let mut block: EnvironmentBlock =
        environment_block::parse(&[b"# GRUB Environment Block\n".as_slice(), &[b'#'; 999]].concat()).unwrap();
    variables.iter().for_each(|(name, value)| block.set(name.as_bytes(), value.as_bytes()));
    block.to_bytes().unwrap()
}

#[test]
fn the_environment_block_is_as_before_unless_somebody_else_changed_it() {
    let saved = ("saved_entry", "1");
    for (moment, before, now, after, differences) in [
        (Moment::Live, vec![saved], vec![saved, ("next_entry", ENTRY)], vec![saved], 0),
        // GRUB took it, and left an empty one.
        (Moment::BootImage, vec![saved], vec![saved, ("next_entry", "")], vec![saved], 0),
        (Moment::BootImage, vec![("next_entry", "")], vec![("next_entry", ENTRY)], vec![("next_entry", "")], 0),
        // What GRUB writes by itself goes back in the boot image, and stays on the machine's own system.
        (Moment::BootImage, vec![saved], vec![saved, ("boot_success", "0")], vec![saved], 0),
        (Moment::Live, vec![saved], vec![saved, ("recordfail", "1")], vec![saved, ("recordfail", "1")], 0),
        // An operator chose another default.
        (Moment::Live, vec![saved], vec![("saved_entry", "2"), ("next_entry", ENTRY)], vec![("saved_entry", "2")], 1),
        (Moment::Live, vec![saved], vec![saved, ("next_entry", "theirs")], vec![saved, ("next_entry", "theirs")], 1),
    ] {
        let change = Change::Environment {
            filesystem: filesystem(),
            path: "grubenv".into(),
            before: record::to_hex(&block(&before)),
            entry: ENTRY.into(),
        };
        let bench = Bench::new(change);
        std::fs::write(bench.file("grubenv"), block(&now)).unwrap();
        let report = bench.undo(moment);
        assert_eq!(std::fs::read(bench.file("grubenv")).unwrap(), block(&after), "{now:?}");
        assert_eq!(report.differences.len(), differences, "{now:?}");
    }
}

#[test]
fn secrets_are_written_over_before_they_are_removed() {
    let change = Change::File { filesystem: filesystem(), path: "configuration.img".into(), secret: true };
    let bench = Bench::new(change);
    let (file, other) = (bench.file("configuration.img"), bench.file("other-name"));
    std::fs::write(&file, "secret").unwrap();
    std::fs::hard_link(&file, &other).unwrap();
    assert_eq!(bench.undo(Moment::BootImage).undone.len(), 1);
    assert!(!file.exists());
    assert_eq!(std::fs::read(&other).unwrap(), [0; 6]);
}

#[test]
fn a_folder_with_files_of_others_stays() {
    let bench = Bench::new(Change::Folder { filesystem: filesystem(), path: "vconverter".into() });
    std::fs::create_dir(bench.file("vconverter")).unwrap();
    std::fs::write(bench.file("vconverter/theirs"), "").unwrap();
    assert_eq!(bench.undo(Moment::Live).differences.len(), 1);
    std::fs::remove_file(bench.file("vconverter/theirs")).unwrap();
    assert_eq!(bench.undo(Moment::Live).differences.len(), 0);
    assert!(!bench.file("vconverter").exists());
}

#[test]
fn a_link_does_not_lead_out_of_the_filesystem() {
    let bench = Bench::new(Change::File { filesystem: filesystem(), path: "a/b".into(), secret: true });
    let outside = bench.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("b"), "theirs").unwrap();
    std::os::unix::fs::symlink(&outside, bench.file("a")).unwrap();
    assert!(bench.undo(Moment::BootImage).differences[0].contains("no folder"));
    assert_eq!(std::fs::read_to_string(outside.join("b")).unwrap(), "theirs");
}

fn attributed(numbers: &[u16]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    efi::ATTRIBUTES.into_iter().chain(numbers).collect()
}

#[test]
fn boot_order_loses_our_entry_and_keeps_what_others_changed() {
    let name = efi::global("BootOrder");
    for (before, now, after, differences) in [
        (Some([2, 1].as_slice()), Some([5, 2, 1].as_slice()), Some([2, 1].as_slice()), 0),
        (Some(&[2, 1]), Some(&[2, 1]), Some(&[2, 1]), 0),
        (Some(&[2, 1]), Some(&[1, 5, 2]), Some(&[1, 2]), 1),
        (Some(&[2, 1]), Some(&[1, 2]), Some(&[1, 2]), 1),
        (None, Some(&[5]), None, 0),
    ] {
        let before = before.map(|numbers| record::to_hex(&attributed(numbers)));
        let after_ours = Some(record::to_hex(&attributed(&[5])));
        let bench = Bench::new(Change::Variable { name: name.clone(), before, after: after_ours });
        let system = bench.system();
        let variables = Variables::of(&system);
        variables.write(&name, &attributed(now.unwrap())).unwrap();
        let report = bench.undo(Moment::BootImage);
        assert_eq!(variables.read(&name).unwrap(), after.map(attributed), "{now:?}");
        assert_eq!(report.differences.len(), differences, "{now:?}");
    }
}

#[test]
fn variables_of_others_stay_as_they_are() {
    let name = efi::global("BootNext");
    let ours = Some(record::to_hex(&attributed(&[5])));
    for (now, after, differences) in [
        (Some(5), None, 0),
        // The firmware took it.
        (None, None, 0),
        (Some(6), Some(6), 1),
    ] {
        let bench = Bench::new(Change::Variable { name: name.clone(), before: None, after: ours.clone() });
        let system = bench.system();
        let variables = Variables::of(&system);
        if let Some(number) = now {
            variables.write(&name, &attributed(&[number])).unwrap();
        }
        let report = bench.undo(Moment::Live);
        assert_eq!(variables.read(&name).unwrap(), after.map(|number| attributed(&[number])), "{now:?}");
        assert_eq!(report.differences.len(), differences, "{now:?}");
    }
}

#[test]
fn our_boot_entry_goes_even_when_the_firmware_wrote_it_anew() {
    let drive = efi::HardDrive { number: 1, start: 2048, blocks: 99, signature: [7; 16], is_gpt: true };
    let name = efi::boot_entry(5);
    let with_attributes = |option: Vec<u8>| [&efi::ATTRIBUTES[..], &option].concat();
    let ours = with_attributes(efi::load_option(ENTRY_DESCRIPTION, &drive, "\\EFI\\vconverter\\shimx64.efi"));
    let anew = with_attributes(efi::load_option(ENTRY_DESCRIPTION, &drive, "\\efi\\VCONVE~1\\SHIMX64.EFI"));
    let theirs = with_attributes(efi::load_option("debian", &drive, "\\EFI\\debian\\shimx64.efi"));
    for (now, stays) in [(&ours, false), (&anew, false), (&theirs, true)] {
        let after = Some(record::to_hex(&ours));
        let bench = Bench::new(Change::Variable { name: name.clone(), before: None, after });
        let system = bench.system();
        Variables::of(&system).write(&name, now).unwrap();
        let report = bench.undo(Moment::BootImage);
        assert_eq!(
            (Variables::of(&system).read(&name).unwrap().is_some(), report.differences.is_empty()),
            (stays, !stays)
        );
    }
}

#[test]
fn a_filesystem_that_is_not_there_is_told_and_the_rest_is_undone() {
    let bench = Bench::new(Change::File { filesystem: filesystem(), path: "x".into(), secret: false });
    let name = efi::global("BootNext");
    let mut record = bench.record.clone();
    record.changes.push(Change::Variable {
        name: name.clone(),
        before: None,
        after: Some(record::to_hex(&attributed(&[5]))),
    });
    let system = bench.system();
    Variables::of(&system).write(&name, &attributed(&[5])).unwrap();
    let absent = |_: &Filesystem| Err(Error::new(ErrorKind::Io, "no disk has filesystem 0a"));
    let report = undo(&system, &record, &mut { absent }, Moment::BootImage);
    println!("{report:?}");
    assert!(report.differences.iter().any(|line| line.contains("no disk has filesystem 0a")));
    assert_eq!(Variables::of(&system).read(&name).unwrap(), None);
}

#[test]
fn what_changed_outside_of_our_changes_is_told() {
    let mut bench = Bench::new(Change::Folder { filesystem: filesystem(), path: "ours".into() });
    std::fs::create_dir_all(bench.file("EFI/debian")).unwrap();
    std::fs::write(bench.file("EFI/debian/grub.cfg"), "a").unwrap();
    let system = bench.system();
    let variables = Variables::of(&system);
    variables.write(&efi::boot_entry(1), &attributed(&[9])).unwrap();
    bench.record.snapshot.variables = snapshot::of_variables(&variables);
    let files = snapshot::of_files(Path::new(&bench.file("")), "EFI").unwrap();
    let folder = record::FolderSnapshot { filesystem: filesystem(), path: "EFI".into(), files };
    bench.record.snapshot.folders.push(folder);
    assert_eq!(bench.undo(Moment::Live).differences, Vec::<String>::new());
    std::fs::write(bench.file("EFI/debian/grub.cfg"), "b").unwrap();
    std::fs::write(bench.file("EFI/new"), "").unwrap();
    variables.write(&efi::boot_entry(1), &attributed(&[8])).unwrap();
    variables.write(&efi::boot_entry(2), &attributed(&[8])).unwrap();
    let differences = bench.undo(Moment::Live).differences;
    for part in ["EFI/debian/grub.cfg is not as it was", "EFI/new was not", "Boot0001", "Boot0002"] {
        assert!(differences.iter().any(|line| line.contains(part)), "{part}: {differences:?}");
    }
    assert_eq!(differences.len(), 4);
}

#[test]
fn variables_that_cannot_be_reached_are_told_once_and_only_where_it_matters() {
    let name = efi::global("BootNext");
    for (change, differences) in [
        (Change::Variable { name, before: None, after: Some(record::to_hex(&attributed(&[5]))) }, 1),
        (Change::Folder { filesystem: filesystem(), path: "x".into() }, 0),
    ] {
        let mut bench = Bench::new(change);
        bench.record.snapshot.variables = [0, 1].map(|number| (efi::boot_entry(number), "0a".to_owned())).into();
        std::fs::remove_dir(bench.system().path(efi::VARIABLES)).unwrap();
        assert_eq!(bench.undo(Moment::BootImage).differences.len(), differences);
    }
}

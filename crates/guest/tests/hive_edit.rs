//! Edited hives hold what a plain model holds, are whole, and other readers read the same from them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guest::ErrorKind;
use guest::windows::hive::{Data, Filetime, Hive, Name, Severity, Unfinished, ValueType};
use support::{hive, keys, test_data, unpack, values};

const NOW: Filetime = Filetime(0x01db_0000_0000_0000);

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn name(&mut self) -> String {
        const STEMS: [&str; 8] = ["Start", "vioscsi", "PCI", "{4d36e97b}", "Ключ", "é", "a_b", "名"];
        format!("{}{}", STEMS[self.below(8)], self.below(900))
    }

    fn data(&mut self) -> Data {
        let length = match self.below(40) {
            0 => 16_340 + self.below(12),
            1 => 16_344 * 2 + self.below(3),
            2 => 40_000 + self.below(9000),
            3..=8 => self.below(5),
            9..=20 => self.below(300),
            _ => self.below(60),
        };
        let kind = [0, 1, 2, 3, 4, 7, 8, 11, 0xffff_0012][self.below(9)];
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect();
        Data::new(ValueType(kind), bytes)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    keys: BTreeMap<Vec<String>, ModelKey>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelKey {
    class: Option<String>,
    security: Vec<u8>,
    values: BTreeMap<String, Data>,
}

impl Model {
    /// What a hive holds, by names as they are.
    fn of(hive: &Hive) -> Self {
        let mut model = Self::default();
        for (path, key) in keys(hive) {
            let class = key.class().unwrap();
            let security = key.security().unwrap().to_vec();
            model.keys.insert(path, ModelKey { class, security, values: values(&key) });
        }
        model
    }

    fn pick(&self, dice: &mut Dice) -> Vec<String> {
        self.keys.keys().nth(dice.below(self.keys.len())).unwrap().clone()
    }
}

fn descriptor(which: usize) -> Vec<u8> {
    // Self-relative, owner and group absent, an empty access list; the size differs.
    let mut bytes = vec![1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 8, 0, 0, 0, 0, 0];
    bytes.resize(28 + which * 4, 0);
    bytes
}

/// Changes hive and model alike. Names of the random kind do not differ in case alone.
fn change(hive: &mut Hive, model: &mut Model, dice: &mut Dice, changes: usize) {
    let mut edit = hive.edit(NOW).unwrap();
    for _ in 0..changes {
        let path = model.pick(dice);
        let text = path.join("\\");
        match dice.below(20) {
            0..=6 => {
                let name = if dice.below(3) == 0 { "many".to_owned() } else { dice.name() };
                // One key gets most of the subkeys, so that its list is divided.
                let parent = if dice.below(2) == 0 && model.keys.contains_key(&vec!["many".to_owned()]) {
                    vec!["many".to_owned()]
                } else {
                    path
                };
                let mut child = parent.clone();
                child.push(name);
                if child.len() > 30 {
                    continue;
                }
                let is_new = !model.keys.contains_key(&child);
                assert_eq!(edit.create_key(&child.join("\\")).unwrap(), is_new);
                if is_new {
                    let security = model.keys[&parent].security.clone();
                    model.keys.insert(child, ModelKey { security, ..ModelKey::default() });
                }
            }
            7 => {
                if path.len() > 1 || path.len() == 1 && dice.below(8) == 0 {
                    assert!(edit.delete_key(&text).unwrap());
                    model.keys.retain(|key, _| !key.starts_with(&path));
                } else {
                    assert!(!edit.delete_key(&format!("{text}\\not there")).unwrap());
                }
            }
            8..=14 => {
                let (name, data) = (if dice.below(9) == 0 { String::new() } else { dice.name() }, dice.data());
                let is_new = model.keys[&path].values.get(&name) != Some(&data);
                assert_eq!(edit.set_value(&text, &name, &data).unwrap(), is_new);
                model.keys.get_mut(&path).unwrap().values.insert(name, data);
            }
            15 | 16 => {
                let key = model.keys.get_mut(&path).unwrap();
                let Some(name) = key.values.keys().nth(dice.below(key.values.len().max(1))).cloned() else { continue };
                assert!(edit.delete_value(&text, &name).unwrap());
                key.values.remove(&name);
            }
            17 => {
                let class = dice.name();
                edit.set_class(&text, &class).unwrap();
                model.keys.get_mut(&path).unwrap().class = Some(class);
            }
            _ => {
                let security = descriptor(dice.below(6));
                edit.set_security(&text, &security).unwrap();
                model.keys.get_mut(&path).unwrap().security = security;
            }
        }
    }
    assert!(edit.commit().unwrap());
}

#[test]
fn ten_thousand_random_changes_leave_what_a_model_holds_and_others_read_the_same() {
    let Some(data) = test_data() else { return };
    for (name, changes) in [
        ("hives/odd/EmptyHive", 10_000),
        ("hives/odd/nt-hive-testhive", 10_000),
        ("hives/BCD-win10-uefi", 3000),
        ("hives/SYSTEM-xpsp3-x86-clean", 2000),
    ] {
        let mut hive = hive(&data, name);
        let mut model = Model::of(&hive);
        let notes = hive.check().findings.len();
        let mut dice = Dice(0x5eed_0000_0001);
        // Several edits, so that freed cells of one are used in the next.
        for _ in 0..4 {
            change(&mut hive, &mut model, &mut dice, changes / 4);
            let check = hive.check();
            assert!(check.is_whole(), "{name}: {:?}", check.findings);
        }
        let check = hive.check();
        assert!(check.findings.len() <= notes, "{name}: {:?}", check.findings);
        assert_eq!(Model::of(&hive), model, "{name}");
        let bytes = hive.to_file(NOW);
        let again = Hive::load(bytes.clone(), &[], Unfinished::Refuse).unwrap();
        assert_eq!(Model::of(&again), model, "{name}");
        println!("{name}: {} keys, {} bytes, {} free", model.keys.len(), bytes.len(), check.free_bytes);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hive");
        std::fs::write(&file, &bytes).unwrap();
        hivex_reads(&file, &model);
        reglookup_reads(&file, &model);
    }
}

/// What `hivexregedit` is to print, a line a value, each after its key.
fn hivex_reads(file: &Path, model: &Model) {
    let output = Command::new("hivexregedit").arg("--export").arg(file).arg("\\").output();
    let Ok(output) = output else {
        println!("skipped: no hivexregedit");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Vec::new();
    let mut key = String::new();
    for line in output.stdout.split(|&byte| byte == b'\n').skip(1).filter(|line| !line.is_empty()) {
        // Perl prints a text without letters above 255 as Latin-1.
        let line = String::from_utf8(line.to_vec()).unwrap_or_else(|_| line.iter().map(|&b| char::from(b)).collect());
        if line.starts_with('[') {
            key = line;
            found.push(key.clone());
        } else {
            found.push(format!("{key} {line}"));
        }
    }
    let mut expected = Vec::new();
    for (path, key) in &model.keys {
        let heading = format!("[\\{}]", path.join("\\"));
        expected.push(heading.clone());
        for (name, data) in &key.values {
            let name = match name.as_str() {
                "" => "@".to_owned(),
                name => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
            };
            let bytes: Vec<String> = data.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let value = match (data.kind, data.dword()) {
                (ValueType::DWORD, Some(number)) => format!("dword:{number:08x}"),
                (kind, _) => format!("hex({:x}):{}", kind.0, bytes.join(",")),
            };
            expected.push(format!("{heading} {name}={value}"));
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    println!("hivexregedit: {} lines equal", found.len());
}

/// `reglookup` sees as many keys, and values of each type; its names are not Unicode.
fn reglookup_reads(file: &Path, model: &Model) {
    let Ok(output) = Command::new("reglookup").arg(file).output() else {
        println!("skipped: no reglookup");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |kind: &str| text.lines().filter(|line| line.split(',').nth(1) == Some(kind)).count();
    let values = |kind: u32| {
        model.keys.values().flat_map(|key| key.values.values()).filter(|data| data.kind == ValueType(kind)).count()
    };
    assert_eq!(count("KEY"), model.keys.len());
    for (name, kind) in [("SZ", 1), ("BINARY", 3), ("DWORD", 4), ("MULTI_SZ", 7), ("QWORD", 11), ("NONE", 0)] {
        assert_eq!(count(name), values(kind), "{name}");
    }
    println!("reglookup: {} keys", count("KEY"));
}

#[test]
fn lists_of_subkeys_are_divided_shrink_and_go() {
    let Some(data) = test_data() else { return };
    for name in ["hives/odd/EmptyHive", "hives/odd/nt-hive-testhive"] {
        let mut hive = hive(&data, name);
        let (before, findings) = (Model::of(&hive), hive.check().findings);
        let mut edit = hive.edit(NOW).unwrap();
        for index in 0..3000 {
            // Neither ascending nor descending.
            assert!(edit.create_key(&format!("big\\k{:04}", index * 1009 % 3000)).unwrap());
        }
        edit.commit().unwrap();
        let check = hive.check();
        assert!(check.is_whole(), "{name}: {:?}", check.findings);
        let big = hive.open("BIG").unwrap().unwrap();
        let names: Vec<String> = big.subkeys().unwrap().map(|key| key.unwrap().name().unwrap().to_string()).collect();
        assert!(names.is_sorted() && names.len() == 3000);
        let mut edit = hive.edit(NOW).unwrap();
        for index in (0..3000).filter(|index| index % 7 != 0) {
            assert!(edit.delete_key(&format!("big\\k{index:04}")).unwrap());
        }
        edit.commit().unwrap();
        assert!(hive.check().is_whole());
        assert_eq!(hive.open("big").unwrap().unwrap().subkey_count(), 429);
        let mut edit = hive.edit(NOW).unwrap();
        for index in (0..3000).filter(|index| index % 7 == 0) {
            assert!(edit.delete_key(&format!("big\\k{index:04}")).unwrap());
        }
        edit.commit().unwrap();
        assert_eq!(hive.open("big").unwrap().unwrap().subkeys().unwrap().count(), 0);
        let mut edit = hive.edit(NOW).unwrap();
        assert!(edit.delete_key("big").unwrap());
        edit.commit().unwrap();
        assert_eq!(Model::of(&hive), before, "{name}");
        assert_eq!(hive.check().findings, findings, "{name}");
    }
}

#[test]
fn an_edit_that_is_not_committed_or_that_fails_leaves_every_byte() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/BCD-win10-uefi");
    let before = hive.bins_bytes().to_vec();
    let mut edit = hive.edit(NOW).unwrap();
    edit.create_key("Objects\\x\\y").unwrap();
    edit.set_value("Objects\\x", "long", &Data::binary(vec![7; 300_000])).unwrap();
    assert!(edit.hive().open("objects\\X\\Y").unwrap().is_some());
    drop(edit);
    assert!(hive.bins_bytes() == before);
    let mut edit = hive.edit(NOW).unwrap();
    edit.create_key("Objects\\x").unwrap();
    let error = edit.set_value("Objects\\none", "v", &Data::of_dword(1)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Missing);
    println!("{error}");
    assert_eq!(edit.commit().unwrap_err().kind, ErrorKind::Changed);
    assert!(hive.bins_bytes() == before);
    let edit = hive.edit(NOW).unwrap();
    assert!(!edit.commit().unwrap(), "nothing was changed");
}

#[test]
fn names_depths_and_lengths_that_windows_does_not_allow_are_refused() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/BCD-win10-uefi");
    for path in ["x".repeat(256), "a\\".repeat(513)] {
        let error = hive.edit(NOW).unwrap().create_key(&path).unwrap_err();
        println!("{error}");
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
    let long = Name::from_units(vec![u16::from(b'v'); 16_384]);
    assert!(hive.edit(NOW).unwrap().set_value("", long, &Data::of_dword(1)).is_err());
    assert!(hive.edit(NOW).unwrap().set_value("", "v", &Data::binary(vec![0; (1 << 20) + 1])).is_err());
    assert!(hive.edit(NOW).unwrap().delete_key("").is_err());
    assert!(hive.edit(NOW).unwrap().set_security("", &[]).is_err());
    let mut edit = hive.edit(NOW).unwrap();
    assert!(edit.create_key(&"x".repeat(255)).unwrap());
    edit.commit().unwrap();
    assert!(hive.check().is_whole());
}

#[test]
fn damaged_hives_and_those_of_containers_are_not_edited() {
    let Some(data) = test_data() else { return };
    for (name, kind) in [
        ("hives/odd/BadListHive", ErrorKind::Malformed),
        ("hives/odd/WrongOrderHive", ErrorKind::Malformed),
        ("hives/odd/System_Delta", ErrorKind::Unsupported),
    ] {
        let mut hive = hive(&data, name);
        let error = hive.edit(NOW).unwrap_err();
        println!("{name}: {error}");
        assert_eq!(error.kind, kind, "{name}");
    }
}

#[test]
fn the_largest_hive_takes_an_edit() {
    let Some(data) = test_data() else { return };
    let mut hive = Hive::load(unpack(&data, "hives/SOFTWARE-win7sp1-x86-clean"), &[], Unfinished::Refuse).unwrap();
    let mut edit = hive.edit(NOW).unwrap();
    let path = r"Microsoft\Windows\CurrentVersion\RunOnce";
    edit.set_value(path, "vconverter", &Data::sz("x")).unwrap();
    edit.delete_key("Classes").unwrap();
    edit.commit().unwrap();
    let check = hive.check();
    assert!(check.is_whole() && check.findings.iter().all(|finding| finding.severity == Severity::Note));
    println!("{} keys, {} bytes free", check.keys, check.free_bytes);
    assert_eq!(hive.open(path).unwrap().unwrap().text("VCONVERTER").unwrap().as_deref(), Some("x"));
    assert!(hive.open("Classes").unwrap().is_none());
}

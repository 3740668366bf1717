//! Registration files: what is exported is regedit's text, and merging it gives the same hive.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use guest::ErrorKind;
use guest::windows::hive::{Data, Filetime, Hive, KeyPath, Name, Unfinished, ValueType};
use guest::windows::reg_text::{Action, Change, Encoding, Export, export, full_path, merge, parse, usual_prefix};
use support::{hive, keys, test_data, values};

const NOW: Filetime = Filetime(0x01db_0000_0000_0000);

fn exported(hive: &Hive, key: &str, prefix: &str, encoding: Encoding) -> Vec<u8> {
    let (key, prefix) = (KeyPath::from(key), KeyPath::from(prefix));
    let from = hive.open(&key).unwrap().unwrap();
    let mut text = Vec::new();
    let how = Export { key: &key, prefix: &prefix, encoding, salvage: false };
    assert!(export(hive, &from, &how, &mut text).unwrap().is_empty());
    text
}

/// Every value by its key's path.
fn all_values(hive: &Hive) -> BTreeMap<Vec<String>, BTreeMap<String, Data>> {
    keys(hive).into_iter().map(|(path, key)| (path, values(&key))).collect()
}

#[test]
fn an_exported_hive_merged_into_an_empty_one_is_the_same() {
    let Some(data) = test_data() else { return };
    for name in
        ["hives/odd/nt-hive-testhive", "hives/BCD-win10-uefi", "hives/SYSTEM-xpsp3-x86-clean", "hives/NTUSER-dirty"]
    {
        let source = hive(&data, name);
        let text = exported(&source, "", "HKEY_LOCAL_MACHINE\\X", Encoding::Utf16);
        assert!(text.starts_with(&[0xff, 0xfe]));
        let sections = parse(&text).unwrap();
        // Of version 1.5, so that long data have a place.
        let mut copy = hive(&data, "hives/odd/BigDataHive");
        let mut edit = copy.edit(NOW).unwrap();
        for key in ["key", "1"] {
            edit.delete_key(key).unwrap();
        }
        let merged = merge(&mut edit, &sections, &KeyPath::from("hklm\\x")).unwrap();
        edit.commit().unwrap();
        let (expected, mut found) = (all_values(&source), all_values(&copy));
        found.retain(|path, _| path.is_empty() || expected.contains_key(path));
        if expected[&Vec::new()].is_empty() {
            found.insert(Vec::new(), BTreeMap::new());
        }
        assert!(copy.check().is_whole());
        println!("{name}: {} bytes of text, {} changes", text.len(), merged.actions.len());
        assert_eq!(found.len(), expected.len(), "{name}");
        for ((path, found), expected) in found.iter().zip(expected.values()) {
            assert_eq!(found, expected, "{name}: {path:?}");
        }
        // The second time there is nothing to do.
        let mut edit = copy.edit(NOW).unwrap();
        let again = merge(&mut edit, &sections, &KeyPath::from("HKLM\\X")).unwrap();
        assert!(again.actions.is_empty() && again.same > 100, "{name}: {:?}", again.actions.first());
        assert!(!edit.commit().unwrap());
    }
}

#[test]
fn the_text_is_the_one_that_regedit_writes() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/odd/nt-hive-testhive");
    let mut edit = hive.edit(NOW).unwrap();
    edit.create_key("t\\a]b").unwrap();
    let path = "%SystemRoot%\\System32\\svchost.exe -k LocalServiceNetworkRestricted -p";
    edit.set_value("t", "ImagePath", &Data::expand_sz(path)).unwrap();
    let actions = [0x80, 0x51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x14, 0, 0, 0, 1, 0];
    edit.set_value("t", "FailureActions", &Data::binary(actions)).unwrap();
    edit.set_value("t", "", &Data::sz("C:\\a \"b\"")).unwrap();
    edit.set_value("t", "q\"\\", &Data::of_dword(42)).unwrap();
    edit.set_value("t", "none", &Data::new(ValueType::NONE, [])).unwrap();
    edit.set_value("t", "lines", &Data::sz("a\r\nb")).unwrap();
    edit.set_value("t", "open", &Data::new(ValueType::SZ, *b"a\0")).unwrap();
    edit.set_value("t", "short", &Data::new(ValueType::DWORD, [1])).unwrap();
    edit.set_value("t", "property", &Data::new(ValueType(0xffff_0012), [1, 2])).unwrap();
    edit.commit().unwrap();
    // Line breaks as in exports of wscsvc that people published.
    let expected = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\X\t]
"ImagePath"=hex(2):25,00,53,00,79,00,73,00,74,00,65,00,6d,00,52,00,6f,00,6f,00,\
  74,00,25,00,5c,00,53,00,79,00,73,00,74,00,65,00,6d,00,33,00,32,00,5c,00,73,\
  00,76,00,63,00,68,00,6f,00,73,00,74,00,2e,00,65,00,78,00,65,00,20,00,2d,00,\
  6b,00,20,00,4c,00,6f,00,63,00,61,00,6c,00,53,00,65,00,72,00,76,00,69,00,63,\
  00,65,00,4e,00,65,00,74,00,77,00,6f,00,72,00,6b,00,52,00,65,00,73,00,74,00,\
  72,00,69,00,63,00,74,00,65,00,64,00,20,00,2d,00,70,00,00,00
"FailureActions"=hex:80,51,01,00,00,00,00,00,00,00,00,00,03,00,00,00,14,00,00,\
  00,01,00
@="C:\\a \"b\""
"q\"\\"=dword:0000002a
"none"=hex(0):
"lines"=hex(1):61,00,0d,00,0a,00,62,00,00,00
"open"=hex(1):61,00
"short"=hex(4):01
"property"=hex(ffff0012):01,02

[HKEY_LOCAL_MACHINE\X\t\a]b]

"#;
    let text = exported(&hive, "t", "HKEY_LOCAL_MACHINE\\X", Encoding::Utf8);
    assert_eq!(String::from_utf8(text).unwrap(), expected);
    let wide = exported(&hive, "t", "HKEY_LOCAL_MACHINE\\X", Encoding::Utf16);
    let units: Vec<u16> = wide.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert_eq!(String::from_utf16(&units[1..]).unwrap(), expected.replace('\n', "\r\n"));
}

/// A registration file of `count` keys with values of every kind, spread over a few parents.
fn random_text(count: u64) -> String {
    let mut text = "Windows Registry Editor Version 5.00\r\n".to_owned();
    let mut state = 0x5eed_u64;
    let mut next = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for index in 0..count {
        let (parent, name) = (next(7), next(1 << 30));
        text.push_str(&format!("\r\n[HKEY_LOCAL_MACHINE\\X\\p{parent}\\k{name:x}-{index}]\r\n"));
        text.push_str(&format!("\"n\"=dword:{:08x}\r\n\"s\"=\"C:\\\\{}\"\r\n", next(1 << 31), next(1 << 40)));
        if next(4) == 0 {
            let bytes: Vec<String> = (0..next(200)).map(|_| format!("{:02x}", next(256))).collect();
            text.push_str(&format!("@=hex:{}\r\n", bytes.join(",")));
        }
        if next(9) == 0 {
            text.push_str("\"m\"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n");
        }
    }
    text
}

#[test]
fn ten_thousand_merged_keys_are_read_the_same_by_others() {
    let Some(data) = test_data() else { return };
    let text = random_text(10_000);
    let sections = parse(text.as_bytes()).unwrap();
    for name in ["hives/odd/EmptyHive", "hives/SYSTEM-xpsp3-x86-clean"] {
        let mut hive = hive(&data, name);
        let before = all_values(&hive);
        let mut edit = hive.edit(NOW).unwrap();
        let merged = merge(&mut edit, &sections, &KeyPath::from("HKLM\\X")).unwrap();
        edit.commit().unwrap();
        let made = merged.actions.iter().filter(|action| matches!(action, Action::MadeKey(_))).count();
        assert_eq!(made, 10_000);
        let check = hive.check();
        assert!(check.is_whole(), "{:?}", check.findings);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hive");
        std::fs::write(&file, hive.to_file(NOW)).unwrap();
        let after = all_values(&hive);
        assert!(before.iter().all(|(path, values)| after.get(path) == Some(values)), "what was there is there");
        let again = Hive::load(std::fs::read(&file).unwrap(), &[], Unfinished::Refuse).unwrap();
        assert_eq!(all_values(&again), after);
        let Ok(output) = Command::new("hivexregedit")
            .args(["--export", "--prefix", "HKEY_LOCAL_MACHINE\\X"])
            .arg(&file)
            .arg("\\")
            .output()
        else {
            println!("skipped: no hivexregedit");
            continue;
        };
        // Its text is a registration file as well: keys with their values as we read them.
        let headings = text.lines().filter(|line| line.starts_with('['));
        let theirs: BTreeMap<_, _> =
            parse(&output.stdout).unwrap().into_iter().map(|s| (s.key.to_string(), s.change)).collect();
        let ours: BTreeMap<_, _> = sections.iter().map(|s| (s.key.to_string(), &s.change)).collect();
        let mut equal = 0;
        for (heading, section) in headings.zip(&sections) {
            let key = heading.trim_matches(['[', ']', '\r']);
            let (mut found, mut expected) = (theirs[key].clone(), ours[&section.key.to_string()].clone());
            for change in [&mut found, &mut expected] {
                if let guest::windows::reg_text::Change::Set(values) = change {
                    values.sort_by(|a, b| a.0.compare(&b.0));
                }
            }
            assert_eq!(found, expected, "{key}");
            equal += 1;
        }
        println!("{name}: {equal} keys equal in hivexregedit's export");
        assert_eq!(equal, 10_000);
    }
}

#[test]
fn a_merge_is_whole_or_nothing_and_says_where_it_stopped() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/SYSTEM-xpsp3-x86-clean");
    let before = hive.bins_bytes().to_vec();
    let merged = |hive: &mut Hive, text: &str| {
        let sections = parse(text.as_bytes()).unwrap();
        let mut edit = hive.edit(NOW).unwrap();
        let merged = merge(&mut edit, &sections, &usual_prefix("system"));
        if merged.is_ok() {
            edit.commit().unwrap();
        }
        merged
    };
    let text = "REGEDIT4\n[HKEY_LOCAL_MACHINE\\SYSTEM\\a]\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\b]\n";
    let error = merged(&mut hive, text).unwrap_err();
    println!("{error}");
    assert!(error.to_string().starts_with("line 3: expected a key below HKEY_LOCAL_MACHINE\\SYSTEM"));
    let long = "x".repeat(300);
    let error = merged(&mut hive, &format!("REGEDIT4\n[HKLM\\SYSTEM\\a]\n\n[HKLM\\SYSTEM\\{long}]\n")).unwrap_err();
    assert!(error.to_string().starts_with("line 4: "), "{error}");
    assert!(hive.bins_bytes() == before);
    let text = "REGEDIT4\n[HKLM\\system\\CurrentControlSet\\Services\\Disk]\n\"Start\"=dword:3\n\"x\"=-\n\
        [-HKLM\\SYSTEM\\CurrentControlSet\\Services\\Atapi]\n[-HKLM\\SYSTEM\\CurrentControlSet\\Services\\none]\n";
    let done = merged(&mut hive, text).unwrap();
    println!("{:?}", done.actions.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!((done.actions.len(), done.same), (2, 3));
    assert_eq!(hive.open("ControlSet001\\Services\\disk").unwrap().unwrap().dword("start").unwrap(), Some(3));
    assert!(hive.open("ControlSet001\\Services\\atapi").unwrap().is_none());
    assert!(hive.open("ControlSet003\\Services\\atapi").unwrap().is_some());
}

#[test]
fn short_names_of_predefined_keys_and_usual_places_are_known() {
    assert_eq!(full_path("hku\\x").to_string(), "HKEY_USERS\\x");
    assert_eq!(full_path("other").to_string(), "other");
    assert_eq!(usual_prefix("ntuser.dat").to_string(), "HKEY_CURRENT_USER");
    assert_eq!(usual_prefix("software").to_string(), "HKEY_LOCAL_MACHINE\\SOFTWARE");
    assert_eq!(usual_prefix("my-hive").to_string(), "HKEY_LOCAL_MACHINE\\my-hive");
}

#[test]
fn a_line_break_in_the_name_of_a_key_begins_no_other_key() {
    let Some(data) = test_data() else { return };
    let mut hive = hive(&data, "hives/odd/EmptyHive");
    let mut edit = hive.edit(NOW).unwrap();
    edit.create_key(KeyPath::from_names([Name::from("x]\n[-HKLM"), Name::from("below")])).unwrap();
    edit.commit().unwrap();
    let (key, prefix) = (KeyPath::default(), KeyPath::from("HKLM\\X"));
    let how = |salvage| Export { key: &key, prefix: &prefix, encoding: Encoding::Utf8, salvage };
    let root = hive.root().unwrap();
    let error = export(&hive, &root, &how(false), &mut Vec::new()).unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let mut text = Vec::new();
    assert_eq!(export(&hive, &root, &how(true), &mut text).unwrap().len(), 1);
    let sections = parse(&text).unwrap();
    assert!(sections.iter().all(|section| section.change != Change::Delete), "{sections:?}");
    assert_eq!(sections.last().unwrap().key.to_string(), "HKLM\\X\\?\\below");
}

//! Real hives give the facts that are known of them, and their logs give what Windows itself made of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use guest::ErrorKind;
use guest::windows::hive::{Check, Data, Hive, Severity, State, Unfinished};
use support::{counts, facts, hive, logs, sha256, test_data, unpack};

/// Hives whose facts are those of a dirty file without its logs, or which are broken on purpose.
const NOT_WHOLE: [&str; 4] =
    ["hives/odd/EffectiveSizeHive", "hives/odd/TruncatedHive", "hives/odd/BadListHive", "hives/odd/WrongOrderHive"];

fn count(facts: &serde_json::Value, path: [&str; 2]) -> u64 {
    facts[path[0]][path[1]].as_u64().unwrap_or_else(|| panic!("no fact {path:?}"))
}

#[test]
fn every_hive_has_the_keys_and_values_that_are_known_of_it_and_is_whole() {
    let Some(data) = test_data() else { return };
    let mut seen = 0;
    for (name, facts) in facts(&data).iter().filter(|(name, facts)| {
        name.starts_with("hives/") && !name.contains(".LOG") && !facts["python_registry"].is_null()
    }) {
        if NOT_WHOLE.contains(&name.as_str()) {
            continue;
        }
        let hive = hive(&data, name);
        let expected = match &facts["recovery"] {
            serde_json::Value::Null => {
                (count(facts, ["python_registry", "keys"]), count(facts, ["python_registry", "values"]))
            }
            _ => (count(facts, ["recovery", "after_replay_keys"]), count(facts, ["recovery", "after_replay_values"])),
        };
        assert_eq!(counts(&hive), expected, "{name}");
        let (major, minor) = hive.version();
        assert_eq!(facts["version"], format!("{major}.{minor}"), "{name}");
        assert_eq!(facts["root_name"], hive.root().unwrap().name().unwrap().to_string(), "{name}");
        let check = hive.check();
        println!("{name}: {expected:?} {:?} {:?}", hive.state(), summary(&check));
        for finding in check.findings.iter().take(5) {
            println!("   {finding}");
        }
        assert!(check.is_whole(), "{name}: {:?}", check.damage().next());
        assert_eq!((check.keys as u64, check.values as u64), expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 18, "only {seen} hives");
}

fn summary(check: &Check) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for finding in &check.findings {
        let kind: String = finding.what.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
        *kinds.entry(format!("{:?} {kind}", finding.severity)).or_insert(0) += 1;
    }
    kinds
}

#[test]
fn replay_gives_the_bins_that_two_other_readers_give() {
    let Some(data) = test_data() else { return };
    let mut seen = 0;
    for (name, facts) in &facts(&data) {
        let Some(expected) = facts["recovery"]["sha256_hbins_after"].as_str() else { continue };
        let hive = hive(&data, name);
        assert_eq!(sha256(hive.bins_bytes()), expected, "{name}");
        assert_eq!(hive.bins_bytes().len() as u64, count(facts, ["recovery", "hbins_size_after"]), "{name}");
        let State::Replayed(replay) = hive.state() else { panic!("{name}: {:?}", hive.state()) };
        assert_eq!(u64::from(replay.sequence), count(facts, ["recovery", "after_seq"]), "{name}");
        println!("{name}: {replay:?}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// Everything that a hive says, as lines.
fn contents(hive: &Hive) -> Vec<String> {
    let mut lines = Vec::new();
    for step in hive.walk(&hive.root().unwrap()) {
        let step = step.unwrap();
        let (key, depth) = (step.key, step.depth);
        lines.push(format!(
            "{depth} {} {:?} {:x?}",
            key.name().unwrap(),
            key.class().unwrap(),
            key.security().unwrap()
        ));
        for value in key.values().unwrap().map(Result::unwrap) {
            lines.push(format!("{depth} = {} {:?}", value.name().unwrap(), value.data().unwrap()));
        }
    }
    lines
}

#[test]
fn replay_equals_what_windows_7_and_10_made_of_the_same_hives() {
    let Some(data) = test_data() else { return };
    for (dirty, recovered) in [
        ("hives/dirty/OldDirtyHive", "hives/dirty/OldDirtyHive.RecoveredHive_Windows7"),
        ("hives/dirty/NewDirtyHive1", "hives/dirty/NewDirtyHive1.RecoveredHive_Windows10"),
    ] {
        let (ours, theirs) = (hive(&data, dirty), hive(&data, recovered));
        assert!(matches!(ours.state(), State::Replayed(_)), "{dirty}");
        assert_eq!(theirs.state(), State::Clean);
        let (ours, theirs) = (contents(&ours), contents(&theirs));
        println!("{dirty}: {} lines", ours.len());
        assert_eq!(ours, theirs, "{dirty}");
    }
}

#[test]
fn a_hive_that_needs_both_logs_is_not_read_with_one_that_does_not_begin_where_it_ended() {
    let Some(data) = test_data() else { return };
    let name = "hives/SYSTEM-win10-1709-x64-dirty";
    let (primary, logs) = (unpack(&data, name), logs(&data, name));
    let State::Replayed(first) = Hive::load(primary.clone(), &logs[..1], Unfinished::Refuse).unwrap().state() else {
        panic!("the first log was not replayed")
    };
    let State::Replayed(both) = Hive::load(primary.clone(), &logs, Unfinished::Refuse).unwrap().state() else {
        panic!("the logs were not replayed")
    };
    assert!(first.sequence < both.sequence && first.entries < both.entries, "{first:?} {both:?}");
    let turned: Vec<Vec<u8>> = logs.iter().rev().cloned().collect();
    let State::Replayed(other_order) = Hive::load(primary, &turned, Unfinished::Refuse).unwrap().state() else {
        panic!("the logs were not replayed")
    };
    assert_eq!(both, other_order);
}

#[test]
fn an_unfinished_hive_without_logs_is_refused_with_what_to_do_and_read_on_request() {
    let Some(data) = test_data() else { return };
    let name = "hives/NTUSER-dirty";
    let error = Hive::load(unpack(&data, name), &[], Unfinished::Refuse).unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, ErrorKind::Missing);
    assert!(error.to_string().contains(".LOG1"), "{error}");
    let hive = Hive::load(unpack(&data, name), &[], Unfinished::ReadAsItIs).unwrap();
    assert_eq!(hive.state(), State::AsItIs);
    assert_eq!(counts(&hive), (2590, 4119));
    // Its base block says 4096 bytes of bins, which is wrong, and so is its checksum.
    let name = "hives/odd/EffectiveSizeHive";
    assert_eq!(Hive::load(unpack(&data, name), &[], Unfinished::Refuse).unwrap_err().kind, ErrorKind::Missing);
    let hive = Hive::load(unpack(&data, name), &[], Unfinished::ReadAsItIs).unwrap();
    assert_eq!(counts(&hive), (5003, 0));
}

#[test]
fn logs_of_another_hive_or_cut_off_do_not_make_a_hive_readable() {
    let Some(data) = test_data() else { return };
    let primary = unpack(&data, "hives/NTUSER-dirty");
    let other = logs(&data, "hives/SYSTEM-win10-1709-x64-dirty");
    let old = logs(&data, "hives/dirty/OldDirtyHive");
    let cut: Vec<Vec<u8>> = logs(&data, "hives/NTUSER-dirty").iter().map(|log| log[..700].to_vec()).collect();
    for logs in [other[1..].to_vec(), old, cut, vec![Vec::new()]] {
        let error = Hive::load(primary.clone(), &logs, Unfinished::Refuse).unwrap_err();
        println!("{error}");
    }
}

#[test]
fn damage_is_found_with_its_position_and_reason() {
    let Some(data) = test_data() else { return };
    for (name, keys, reason) in
        [("hives/odd/BadListHive", 7, "another use"), ("hives/odd/WrongOrderHive", 11, "out of order")]
    {
        let hive = hive(&data, name);
        assert_eq!(counts(&hive).0, keys, "{name}");
        let check = hive.check();
        for finding in &check.findings {
            println!("{name}: {:?} {finding}", finding.severity);
        }
        let found = check.damage().find(|finding| finding.what.contains(reason));
        assert!(found.is_some_and(|finding| finding.position > 0x1000), "{name}: {check:?}");
    }
    let error = Hive::load(unpack(&data, "hives/odd/TruncatedHive"), &[], Unfinished::Refuse).unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, ErrorKind::Malformed);
    assert!(error.to_string().contains("491520") && error.to_string().contains("0x3000"), "{error}");
}

#[test]
fn what_is_whole_of_a_truncated_hive_is_salvaged_and_the_rest_is_named() {
    let Some(data) = test_data() else { return };
    let (hive, wrong) = Hive::salvage(unpack(&data, "hives/odd/TruncatedHive"), &[]).unwrap();
    assert!(!wrong.is_empty());
    let root = hive.root().unwrap();
    assert!(hive.walk(&root).any(|step| step.is_err()));
    let mut walk = hive.walk(&root).lenient();
    let names: Vec<String> = walk.by_ref().map(|step| step.unwrap().key.name().unwrap().to_string()).collect();
    let keys = names.len();
    for loss in wrong.iter().chain(walk.losses()).take(5) {
        println!("{loss}");
    }
    println!("{keys} keys, {} losses", walk.losses().len());
    assert!(keys >= 2 && !walk.losses().is_empty());
    // A whole hive loses nothing.
    let (hive, wrong) = Hive::salvage(unpack(&data, "hives/odd/ManySubkeysHive"), &[]).unwrap();
    let root = hive.root().unwrap();
    let mut walk = hive.walk(&root).lenient();
    assert_eq!((walk.by_ref().count(), walk.losses().len(), wrong.len()), (5003, 0, 0));
}

#[test]
fn a_hive_of_a_container_shows_what_it_hides() {
    let Some(data) = test_data() else { return };
    let hive = hive(&data, "hives/odd/System_Delta");
    let root = hive.root().unwrap();
    let hidden = hive.walk(&root).filter(|step| step.as_ref().unwrap().key.is_tombstone()).count();
    println!("{hidden} hidden keys");
    assert_eq!(hive.version(), (1, 6));
}

#[test]
fn names_are_found_as_windows_compares_them() {
    let Some(data) = test_data() else { return };
    let unicode = hive(&data, "hives/odd/UnicodeHive");
    assert!(unicode.open("привет\\КЛЮЧ").unwrap().is_some());
    assert!(unicode.open("привет\\нет").unwrap().is_none());
    let system = hive(&data, "hives/SYSTEM-win7sp1-x86-clean");
    let disk = system.open(r"controlset001\SERVICES\disk").unwrap().unwrap();
    assert_eq!(disk.dword("start").unwrap(), Some(0));
    assert_eq!(disk.data("START").unwrap(), Some(Data::of_dword(0)));
    assert!(disk.text("ImagePath").unwrap().is_none_or(|path| path.to_lowercase().contains("disk.sys")));
    let select = system.open("Select").unwrap().unwrap();
    assert_eq!(select.dword("Current").unwrap(), Some(1));
}

#[test]
fn types_big_data_and_names_of_the_test_hive_are_read() {
    let Some(data) = test_data() else { return };
    let hive = hive(&data, "hives/odd/nt-hive-testhive");
    let big = hive.open("big-data-test").unwrap().unwrap();
    for value in big.values().unwrap() {
        let value = value.unwrap();
        let bytes = value.bytes().unwrap();
        println!("{}: {} bytes", value.name().unwrap(), bytes.len());
        assert_eq!(bytes.len(), value.length());
        assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]), "one byte again and again");
    }
    let lengths: Vec<usize> = big.values().unwrap().map(|value| value.unwrap().length()).collect();
    assert!(lengths.contains(&16_345) && lengths.contains(&16_344), "{lengths:?}");
    let types = hive.open("data-test").unwrap().unwrap();
    for value in types.values().unwrap() {
        let value = value.unwrap();
        println!("{} {:?}", value.name().unwrap(), value.kind());
    }
    assert_eq!(types.dword("dword").unwrap(), Some(42));
    assert_eq!(hive.open("subkey-test").unwrap().unwrap().subkeys().unwrap().count(), 512);
}

#[test]
fn every_finding_on_real_clean_hives_is_a_note() {
    let Some(data) = test_data() else { return };
    for name in ["hives/SYSTEM-xpsp3-x86-clean", "hives/SYSTEM-win10-19041-x64-clean", "hives/BCD-win10-uefi"] {
        let check = hive(&data, name).check();
        assert!(check.findings.iter().all(|finding| finding.severity == Severity::Note), "{name}");
        assert!(check.used_bytes + check.free_bytes > 0 && check.descriptors > 0);
    }
}

#[test]
fn the_current_control_set_is_found_by_select() {
    let Some(data) = test_data() else { return };
    let xp = hive(&data, "hives/SYSTEM-xpsp3-x86-clean");
    assert_eq!(xp.current_control_set().unwrap().as_deref(), Some("ControlSet001"));
    assert_eq!(xp.control_sets().unwrap(), ["ControlSet001", "ControlSet003"]);
    let path = xp.resolve(r"currentcontrolset\Control\ComputerName\ComputerName").unwrap();
    let key = xp.open(&path).unwrap().unwrap();
    assert_eq!(key.text("ComputerName").unwrap().as_deref(), Some("IECOMPATVHD"));
    assert_eq!(xp.resolve("Select").unwrap().to_string(), "Select");
    let software = hive(&data, "hives/BCD-win10-uefi");
    assert_eq!(software.resolve("CurrentControlSet").unwrap_err().kind, ErrorKind::Missing);
}

#[test]
fn system_hives_say_what_is_known_of_their_services_and_names() {
    let Some(data) = test_data() else { return };
    let mut seen = 0;
    for (name, facts) in facts(&data).iter().filter(|(_, facts)| !facts["services"].is_null()) {
        let hive = hive(&data, name);
        let at = |path: &str| hive.open(hive.resolve(format!("CurrentControlSet\\{path}").as_str()).unwrap()).unwrap();
        let computer = at(r"Control\ComputerName\ComputerName").unwrap().text("ComputerName").unwrap();
        assert_eq!(facts["ComputerName"], computer.unwrap(), "{name}");
        let product = at(r"Control\ProductOptions").unwrap().text("ProductType").unwrap();
        assert_eq!(facts["ProductType"], product.unwrap(), "{name}");
        let services: Vec<_> = at("Services").unwrap().subkeys().unwrap().map(Result::unwrap).collect();
        // After a replay there may be more than the file alone says.
        if hive.state() == State::Clean {
            assert_eq!(facts["services"], services.len() as u64, "{name}");
            let boot = services.iter().filter(|service| service.dword("Start").unwrap() == Some(0)).count();
            assert_eq!(facts["boot_start_services"], boot as u64, "{name}");
        }
        let critical = at(r"Control\CriticalDeviceDatabase").map(|key| key.subkey_count() as u64);
        assert_eq!(facts["CriticalDeviceDatabase"].as_u64(), critical.filter(|&count| count > 0), "{name}");
        assert_eq!(facts["has_DriverDatabase"], hive.open("DriverDatabase").unwrap().is_some(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

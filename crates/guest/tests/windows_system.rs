//! An installation is opened in whatever case its folders are spelled, with the release that its hives tell.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/windows.rs"]
mod windows;

use guest::windows::hive::State;
use guest::windows::{Product, Windows};
use guest::{ErrorKind, MemoryTree};
use support::{logs, test_data, unpack};
use windows::{hive_of, minimal_system, tree, version, version_10};

#[test]
fn windows_7_is_opened_with_its_control_sets_and_release() {
    let Some(data) = test_data() else { return };
    let software = unpack(&data, "hives/SOFTWARE-win7sp1-x86-clean");
    let tree = tree("/WINDOWS", unpack(&data, "hives/SYSTEM-win7sp1-x86-clean"), software);
    let windows = Windows::open(&tree).unwrap().unwrap();
    println!("{} in {} ({})", windows.release, windows.root, windows.system_root);
    assert_eq!(windows.release.to_string(), "Windows 7 (6.1.7601, x86)");
    assert_eq!((windows.root.as_str(), windows.system_root.as_str()), ("/WINDOWS", "C:\\Windows"));
    assert_eq!(windows.system_path, "/WINDOWS/system32/config/SYSTEM");
    assert_eq!(windows.control_sets, ["ControlSet001", "ControlSet002"]);
    assert_eq!(windows.current, "ControlSet001");
    let disk = windows.current_key("Services\\disk").unwrap().unwrap();
    assert_eq!(disk.dword("Start").unwrap(), Some(0));
    let image = windows.tree_path("\\SystemRoot\\system32\\drivers\\disk.sys");
    assert_eq!(image.as_deref(), Some("/WINDOWS/system32/drivers/disk.sys"));
}

#[test]
fn logs_beside_the_hives_are_replayed() {
    let Some(data) = test_data() else { return };
    let name = "hives/SYSTEM-win10-1709-x64-dirty";
    let logs = logs(&data, name);
    let without = tree("/Windows", unpack(&data, name), hive_of(&data, &version_10(16299)));
    let error = Windows::open(&without).unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, ErrorKind::Missing);
    let with = without
        .with("/Windows/system32/config/SYSTEM.LOG1", &logs[0])
        .with("/Windows/system32/config/system.log2", &logs[1]);
    let windows = Windows::open(&with).unwrap().unwrap();
    assert!(matches!(windows.system.state(), State::Replayed(_)));
    assert_eq!(windows.release.to_string(), "Windows 10 (10.0.16299, amd64)");
}

#[test]
fn xp_in_a_folder_of_windows_nt_and_on_another_letter_is_found() {
    let Some(data) = test_data() else { return };
    let software = hive_of(&data, &version("5.1", 2600, "D:\\WINNT"));
    let tree = tree("/winnt", unpack(&data, "hives/SYSTEM-xpsp3-x86-clean"), software).with("/Windows/win.ini", "");
    let windows = Windows::open(&tree).unwrap().unwrap();
    assert_eq!(windows.release.to_string(), "Windows XP (5.1.2600, x86)");
    assert_eq!(windows.control_sets, ["ControlSet001", "ControlSet003"]);
    assert_eq!(windows.tree_path("d:\\winnt\\x").as_deref(), Some("/winnt/x"));
}

#[test]
fn servers_and_suites_are_told_by_the_product_options() {
    let Some(data) = test_data() else { return };
    for (kind, product, name) in [
        ("ServerNT", Product::Server, "Windows Server 2022"),
        ("LanmanNT", Product::DomainController, "Windows Server 2022"),
        ("WinNT", Product::Workstation, "Windows 10"),
    ] {
        // "Enterprise" and "DataCenter" as REG_MULTI_SZ.
        let suites = "Enterprise\0DataCenter\0\0".encode_utf16().flat_map(u16::to_le_bytes);
        let bytes: Vec<String> = suites.map(|byte| format!("{byte:02x}")).collect();
        let system = minimal_system("AMD64", kind) + &format!("\"ProductSuite\"=hex(7):{}\n", bytes.join(","));
        let tree = tree("/Windows", hive_of(&data, &system), hive_of(&data, &version_10(20348)));
        let release = Windows::open(&tree).unwrap().unwrap().release;
        println!("{kind}: {release} {:?} {:#x}", release.product, release.suites);
        assert_eq!((release.product, release.name(), release.suites), (product, name, 0x82));
    }
}

#[test]
fn what_is_no_whole_windows_is_none_or_an_error_that_says_what_lacks() {
    let Some(data) = test_data() else { return };
    assert!(Windows::open(&MemoryTree::new().with("/Windows/System32/notepad.exe", "")).unwrap().is_none());
    let (system, software) = (minimal_system("AMD64", "WinNT"), version_10(19045));
    let no_software = MemoryTree::new().with("/Windows/System32/config/SYSTEM", hive_of(&data, &system));
    let mut wrong = vec![(no_software, "no hive SOFTWARE")];
    for (system, software, reason) in [
        ("", software.as_str(), "Select"),
        (&system.replace("\"Current\"=dword:00000001", "\"Current\"=dword:00000004"), &software, "ControlSet004"),
        (&system.replace("AMD64", "MIPS"), &software, "PROCESSOR_ARCHITECTURE"),
        (&system, "", "CurrentVersion"),
        (&system, "[Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentVersion\"=\"x\"\n", "expected a version"),
    ] {
        wrong.push((tree("/Windows", hive_of(&data, system), hive_of(&data, software)), reason));
    }
    for (tree, reason) in wrong {
        let error = Windows::open(&tree).unwrap_err();
        println!("{error}");
        assert_eq!(error.kind, ErrorKind::Missing);
        assert!(error.to_string().contains(reason) && error.path.is_some(), "{error}");
    }
}

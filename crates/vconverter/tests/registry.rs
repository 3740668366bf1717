//! `vconverter registry` on real hives.
#![allow(clippy::unwrap_used)]

#[path = "../../block/tests/support/test_data.rs"]
mod test_data;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use test_data::test_data;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with these files of the test data in it; `None` without test data.
fn folder(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let data = test_data()?;
    let folder = tempfile::tempdir().unwrap();
    for (name, to) in files {
        let packed = data.join(format!("hives/{name}.zst"));
        let to = folder.path().join(to);
        let status = Command::new("zstd").args(["-qd", "--long=27"]).arg(packed).arg("-o").arg(&to).status().unwrap();
        assert!(status.success());
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    Some(folder)
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_key_is_exported_and_merged_back_and_nothing_else_is_touched() {
    let Some(folder) = folder(&[("SYSTEM-xpsp3-x86-clean", "system")]) else { return };
    let (hive, reg) = (path(&folder, "system"), path(&folder, "disk.reg"));
    let before = std::fs::read(&hive).unwrap();
    let key = "CurrentControlSet\\Services\\Disk";
    let shown = run(&["registry", "export", &hive, key]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    assert!(shown.starts_with("Windows Registry Editor Version 5.00\n\n"), "{shown}");
    assert!(shown.contains("[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\Disk]\n"), "{shown}");
    assert!(shown.contains("\"Start\"=dword:00000000\n"), "{shown}");
    assert!(run(&["registry", "export", &hive, key, "-o", &reg]).status.success());
    let bytes = std::fs::read(&reg).unwrap();
    assert!(bytes.starts_with(&[0xff, 0xfe, b'W', 0]));
    // A file that is there is not replaced unasked, and the hive never.
    assert_eq!(run(&["registry", "export", &hive, key, "-o", &reg]).status.code(), Some(4));
    assert_eq!(run(&["registry", "export", &hive, key, "-o", &hive, "--force"]).status.code(), Some(2));
    let same = run(&["registry", "merge", &hive, &reg]);
    println!("{}", text(&same.stdout));
    assert!(text(&same.stdout).contains("already so; nothing was written"), "{}", text(&same.stdout));
    let change = path(&folder, "change.reg");
    std::fs::write(&change, "REGEDIT4\n[HKLM\\SYSTEM\\CurrentControlSet\\Services\\Disk]\n\"Start\"=dword:3\n")
        .unwrap();
    let dry = run(&["registry", "merge", &hive, &change, "--dry-run"]);
    assert!(text(&dry.stdout).starts_with("= [ControlSet001\\Services\\Disk] \"Start\"\n"), "{}", text(&dry.stdout));
    assert!(std::fs::read(&hive).unwrap() == before, "nothing was written so far");
    let merged = run(&["registry", "merge", &hive, &change, "--json"]);
    let merged: serde_json::Value = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!((&merged["written"], &merged["same"]), (&true.into(), &1.into()), "{merged}");
    let shown = text(&run(&["registry", "export", &hive, key]).stdout);
    assert!(shown.contains("\"Start\"=dword:00000003\n"), "{shown}");
    assert!(run(&["registry", "check", &hive]).status.success());
    assert_eq!(std::fs::metadata(&hive).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_dirty_hive_is_read_with_its_logs_and_refused_without_them() {
    let files = [
        ("NTUSER-dirty", "NTUSER.DAT"),
        ("NTUSER-dirty.LOG1", "ntuser.dat.LOG1"),
        ("NTUSER-dirty.LOG2", "NTUSER.DAT.log2"),
    ];
    let Some(folder) = folder(&files) else { return };
    let hive = path(&folder, "NTUSER.DAT");
    let before = std::fs::read(&hive).unwrap();
    let check = run(&["registry", "check", &hive]);
    let shown = text(&check.stdout);
    println!("{shown}");
    assert!(check.status.success() && shown.contains("3105 keys, 4695 values"), "{shown}");
    assert!(shown.contains("replayed from its logs: 23 writes") && shown.ends_with("whole\n"), "{shown}");
    let described = run(&["registry", "check", &hive, "--json"]);
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap();
    assert_eq!((&described["whole"], &described["check"]["keys"]), (&true.into(), &3105.into()));
    assert!(std::fs::read(&hive).unwrap() == before, "a check changes nothing");
    for log in ["ntuser.dat.LOG1", "NTUSER.DAT.log2"] {
        std::fs::remove_file(folder.path().join(log)).unwrap();
    }
    let refused = run(&["registry", "export", &hive]);
    println!("{}", text(&refused.stderr));
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(4), 0));
    assert!(text(&refused.stderr).contains("bring its .LOG, .LOG1 and .LOG2"));
    let read = run(&["registry", "export", &hive, "Software", "--as-it-is"]);
    assert!(read.status.success() && text(&read.stdout).contains("[HKEY_CURRENT_USER\\Software]"));
    assert_eq!(run(&["registry", "check", &hive]).status.code(), Some(1));
}

#[test]
fn what_is_wrong_is_one_line_and_an_exit_code() {
    let Some(folder) = folder(&[("odd/TruncatedHive", "cut"), ("odd/BadListHive", "bad"), ("BCD-win10-uefi", "BCD")])
    else {
        return;
    };
    let reg = path(&folder, "a.reg");
    std::fs::write(&reg, "REGEDIT4\n[HKLM\\bad\\x]\n").unwrap();
    for (arguments, code, expected) in [
        (vec!["export".to_owned(), path(&folder, "none")], 3, "No such file"),
        (vec!["export".to_owned(), path(&folder, "BCD"), "no\\key".to_owned()], 3, "no key no\\key"),
        (vec!["export".to_owned(), path(&folder, "cut")], 1, "at 0x3000: expected a hive of 491520 bytes"),
        (vec!["export".to_owned(), reg.clone()], 1, "no registry hive"),
        (vec!["merge".to_owned(), path(&folder, "BCD"), reg.clone()], 1, "line 2: expected a key below"),
        (vec!["merge".to_owned(), path(&folder, "bad"), reg.clone()], 1, "a damaged hive is not edited: at 0x12d0"),
    ] {
        let mut all = vec!["registry"];
        all.extend(arguments.iter().map(String::as_str));
        let output = run(&all);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.contains(expected) && message.lines().count() == 1, "{arguments:?}: {message}");
    }
    let check = run(&["registry", "check", &path(&folder, "bad")]);
    println!("{}", text(&check.stdout));
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stdout).contains("damage: at 0x12d0: list of subkeys"), "{}", text(&check.stdout));
    let saved = run(&["registry", "export", &path(&folder, "cut"), "--salvage"]);
    assert!(saved.status.success() && text(&saved.stdout).contains("[HKEY_LOCAL_MACHINE\\cut]"));
    assert!(text(&saved.stderr).contains("left out: at 0x"), "{}", text(&saved.stderr));
}

#[test]
fn killed_at_any_time_a_merge_leaves_the_old_hive_or_the_new_one() {
    let Some(folder) = folder(&[("SYSTEM-xpsp3-x86-clean", "SYSTEM")]) else { return };
    let (hive, reg) = (path(&folder, "SYSTEM"), path(&folder, "a.reg"));
    let old = std::fs::read(&hive).unwrap();
    let mut lines = "Windows Registry Editor Version 5.00\n".to_owned();
    for index in 0..300 {
        lines.push_str(&format!("\n[HKEY_LOCAL_MACHINE\\SYSTEM\\new\\k{index}]\n\"n\"=dword:{index:08x}\n"));
    }
    std::fs::write(&reg, lines).unwrap();
    let (mut olds, mut news) = (0, 0);
    for round in 0..24 {
        std::fs::write(&hive, &old).unwrap();
        let mut child = command(&["registry", "merge", &hive, &reg]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        if std::fs::read(&hive).unwrap() == old {
            olds += 1;
            continue;
        }
        news += 1;
        assert!(run(&["registry", "check", &hive]).status.success());
        let shown = text(&run(&["registry", "export", &hive, "new"]).stdout);
        assert_eq!(shown.matches("dword:").count(), 300);
    }
    println!("{olds} times the old hive, {news} times the new one");
    assert!(olds > 0, "the first is killed at once");
    // Left to itself it ends, whatever the killed ones left behind.
    std::fs::write(&hive, &old).unwrap();
    assert!(run(&["registry", "merge", &hive, &reg]).status.success());
    assert!(run(&["registry", "check", &hive]).status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

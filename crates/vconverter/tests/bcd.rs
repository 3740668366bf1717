//! `vconverter bcd` on a real store.
#![allow(clippy::unwrap_used)]

#[path = "../../block/tests/support/test_data.rs"]
mod test_data;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use test_data::test_data;

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn unpack(name: &str, to: &Path) -> Option<()> {
    let packed = test_data()?.join(format!("hives/{name}.zst"));
    let status = Command::new("zstd").args(["-qd", "--long=27"]).arg(packed).arg("-o").arg(to).status().unwrap();
    status.success().then_some(())
}

#[test]
fn a_store_is_shown_as_bcdedit_shows_it_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("BCD");
    let Some(()) = unpack("BCD-win10-uefi", &store) else { return };
    let before = std::fs::read(&store).unwrap();
    let shown = run(&["bcd", "show", store.to_str().unwrap()]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    println!("{shown}");
    assert!(
        shown.starts_with("Firmware Boot Manager\n---------------------\nidentifier              {a5a30fa2-"),
        "{shown}"
    );
    assert!(shown.contains("\nsystemroot              \\Windows\n"));
    let json = run(&["bcd", "show", store.to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let objects = json["objects"].as_array().unwrap();
    let manager = objects.iter().find(|object| object["name"] == "{bootmgr}").unwrap();
    assert_eq!((objects.len(), &manager["heading"]), (17, &"Windows Boot Manager".into()));
    let timeout = manager["elements"].as_array().unwrap().iter().find(|element| element["name"] == "timeout").unwrap();
    assert_eq!(
        timeout,
        &serde_json::json!({ "kind": "25000004", "name": "timeout", "format": "integer", "value": 30 })
    );
    assert_eq!(std::fs::read(&store).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hive = folder.path().join("SYSTEM");
    let missing = run(&["bcd", "show", hive.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    let Some(()) = unpack("SYSTEM-xpsp3-x86-clean", &hive) else { return };
    let refused = run(&["bcd", "show", hive.to_str().unwrap()]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("SYSTEM: expected a BCD store, found a hive without the key Objects"), "{said}");
}

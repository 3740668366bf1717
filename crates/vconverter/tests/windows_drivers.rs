//! `vconverter drivers` for Windows as an operator types it: a medium made of the real INF files of the test data, with
//! no controller anywhere.
#![allow(clippy::unwrap_used)]

mod program;
#[path = "../../block/tests/support/test_data.rs"]
mod test_data;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::told;
use serde_json::Value;
use test_data::test_data;

fn json(data: &Path, arguments: &[&str]) -> Value {
    let (code, out, error) = told(data, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).unwrap()
}

fn sh(script: &str, arguments: &[&Path]) {
    let output = Command::new("sh").arg("-ec").arg(script).arg("sh").args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A medium as virtio-win's: a driver for two builds, the one for 10 and later twice; and a signed one.
fn medium(folder: &Path) -> Option<PathBuf> {
    let group = test_data()?.join("groups/drivers-inf.tar.zst");
    let iso = folder.join("virtio-win-0.1.iso");
    sh(
        "mkdir -p \"$2/files\" && tar --zstd -xf \"$1\" -C \"$2/files\"
         stamp() {
           mkdir -p \"$2/$3\"
           sed -e \"s/NT[$]ARCH[$]/$4/; s/INX_PLATFORM_DRIVERS_DIR/12/; s/_INX_SUBSYS_VENDOR_ID/1AF4/\" \\
             -e \"s/^DriverVer=.*/DriverVer=07\\/22\\/2026,$5/\" \"$1/files/kvm-guest-drivers-windows/viostor/viostor.inx\" >\"$2/$3/viostor.inf\"
           { printf MZ; head -c 58 /dev/zero; printf '@\\0\\0\\0PE\\0\\0d\\206'; } >\"$2/$3/viostor.sys\"
         }
         stamp \"$2\" \"$2/medium\" viostor/2k8R2/amd64 NTamd64.6.1 61.6.101.58000
         stamp \"$2\" \"$2/medium\" viostor/2k19/amd64 NTamd64.10.0 100.6.101.58000
         stamp \"$2\" \"$2/medium\" viostor/w10/amd64 NTamd64.10.0 100.6.101.58000
         mkdir \"$2/medium/arduino\" && cp \"$2/files/arduino/genuino.\"* \"$2/medium/arduino\"
         printf '[autorun]\\nopen=x\\n' >\"$2/medium/autorun.inf\"
         xorriso -as mkisofs -quiet -J -r -o \"$3\" \"$2/medium\" 2>&1",
        &[&group, folder, &iso],
    );
    Some(iso)
}

#[test]
fn drivers_of_a_medium_are_added_listed_matched_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(iso) = medium(folder.path()) else { return };
    let added = json(&data, &["drivers", "add", iso.to_str().unwrap()]);
    assert_eq!(added["release"]["name"], "virtio-win-0.1");
    let packages = added["release"]["packages"].as_array().unwrap();
    let paths: Vec<&Value> = packages.iter().map(|package| &package["paths"]).collect();
    assert_eq!(packages.len(), 3, "{paths:?}");
    assert_eq!(added["release"]["left_out"][0]["path"], "/autorun.inf");
    // The one that is signed has nothing to be told of, but that it copies no file of its own.
    assert_eq!(packages[0]["paths"][0], "/arduino/genuino.inf");
    assert_eq!(packages[0]["problems"], serde_json::json!([]));
    assert_eq!(json(&data, &["drivers", "add", iso.to_str().unwrap()])["was_there"], true);
    assert_eq!(json(&data, &["drivers", "list", "--windows"]).as_array().unwrap().len(), 1);
    let (code, shown, _) = told(&data, &["drivers", "show", "virtio-win-0.1"]);
    assert!(code == 0 && shown.contains("/viostor/2k19/amd64/viostor.inf (and 1 more)"), "{shown}");

    let id = "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00";
    let at = |windows: &str| json(&data, &["drivers", "match", "--windows", windows, "--arch", "amd64", "--id", id]);
    let best = at("10.0.17763");
    assert_eq!(best["fitting"][0]["path"], "/viostor/2k19/amd64/viostor.inf");
    assert_eq!((&best["fitting"][0]["service"], &best["fitting"][0]["start"]), (&"viostor".into(), &"boot".into()));
    assert_eq!(best["fitting"][0]["rank"], "0x00ff0000");
    // 10 takes the one for 7 as well, and ranks it below.
    assert_eq!(best["fitting"].as_array().unwrap().len(), 2);
    let old = at("2008r2");
    assert_eq!(
        (&old["fitting"][0]["path"], old["fitting"].as_array().unwrap().len()),
        (&"/viostor/2k8R2/amd64/viostor.inf".into(), 1)
    );
    assert_eq!(old["refused"][0]["why"], "it is for NTamd64.10.0");
    let (code, out, error) = told(&data, &["drivers", "match", "--windows", "2008", "--id", id]);
    assert!(
        code == 3 && out.contains("it is for NTamd64.6.1") && error.contains("no driver in the library"),
        "{out}{error}"
    );

    assert_eq!(json(&data, &["drivers", "remove", "--windows", "virtio-win-0.1"]), serde_json::json!([]));
    assert_eq!(std::fs::read_dir(data.join("windows-drivers/files")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_added_is_one_line_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let [iso, inf, module, empty] = ["x.iso", "x.inf", "x.ko", "empty"].map(|name| folder.path().join(name));
    std::fs::write(&iso, vec![0; 100_000]).unwrap();
    std::fs::write(&inf, "[Version]\nSignature=\"$Windows NT$\"\n").unwrap();
    std::fs::write(&module, "").unwrap();
    std::fs::create_dir(&empty).unwrap();
    let said = |arguments: &[&str], code: i32, words: &str| {
        let (found, out, error) = told(&data, &[&["drivers"], arguments].concat());
        assert_eq!((found, out.as_str(), error.lines().count()), (code, "", 1), "{error}");
        assert!(error.contains(words), "{error}");
    };
    said(&["add", iso.to_str().unwrap()], 1, "x.iso: no ISO 9660 medium");
    said(&["add", inf.to_str().unwrap()], 1, "it is for no device");
    said(&["add", empty.to_str().unwrap()], 3, "no driver for Windows in it: 0 INF files");
    said(&["add", folder.path().join("none.iso").to_str().unwrap()], 3, "none.iso");
    said(&["add", inf.to_str().unwrap(), module.to_str().unwrap()], 2, "one after the other");
    said(&["add", "--name", "../x", inf.to_str().unwrap()], 1, "no name of a release");
    said(&["add", "--name", "x", module.to_str().unwrap()], 2, "--name");
    said(&["show", "none"], 3, "no release none");
    said(&["match", "--windows", "95", "--id", "x"], 2, "no release of Windows");
    assert!(!data.join("windows-drivers/releases").exists());
}

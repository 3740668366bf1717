//! The peers look at the same Windows disks: virt-inspector reads a converted one, and virt-v2v converts the source with the same
//! drivers. Every value of a hive that virt-v2v writes is in a golden file, with ours beside it; README says why some differ.
//!
//! Both run in libguestfs' appliance, translated, which takes minutes. virt-v2v wants a program that Debian does not have, for
//! its own first boot: an empty one stands in, and is not run.
#![allow(clippy::unwrap_used)]

mod windows;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::WindowsDisk;
use windows::differences::{contents, values};
use windows::support::test_data;
use windows::{Case, SEVEN, Software, TEN, XP, convert, files, library, program, ran};

/// virt-v2v's hive library reads no logs, so that what it writes is compared on a hive without any.
const TEN_WITHOUT_LOGS: Case = Case {
    name: "10-clean",
    hostname: "DESKTOP-M3OSHQU",
    system: "SYSTEM-win10-19041-x64-clean",
    software: Software::Made { build: "19041", version: "6.3", major: Some(10) },
    ..TEN
};

/// A program of libguestfs, with a kernel for its appliance: the one that the machines of the lab are built with, where none is installed.
fn guestfs(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LIBGUESTFS_BACKEND", "direct").env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|set| !set.is_empty()).map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("vconverter");
    let kept = cache.join("libguestfs");
    fs::create_dir_all(&kept).unwrap();
    command.env("LIBGUESTFS_CACHEDIR", kept).env("TMPDIR", folder);
    let installed = fs::read_dir("/boot").is_ok_and(|mut boot| {
        boot.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz")))
    });
    if !installed {
        // A conversion was run before: it left the package's files there.
        let is_whole = |path: &PathBuf| path.is_dir() && !path.file_name().unwrap().to_string_lossy().starts_with('.');
        let first = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(is_whole);
        let package = first(cache.join("kernel")).unwrap();
        let modules = first(package.join("lib/modules")).unwrap();
        let release = modules.file_name().unwrap().to_str().unwrap().to_owned();
        command.env("SUPERMIN_KERNEL", package.join(format!("boot/vmlinuz-{release}")));
        command.env("SUPERMIN_KERNEL_VERSION", release).env("SUPERMIN_MODULES", modules);
    }
    command
}

/// What virt-inspector says of a disk.
fn inspected(disk: &Path, folder: &Path) -> String {
    let text = ran(guestfs("virt-inspector", folder)
        .args(["--no-applications", "--no-icon", "-a"])
        .arg(disk)
        .output()
        .unwrap());
    let tells = |line: &&str| {
        ["arch", "product_name", "major_version", "minor_version", "hostname", "windows_", "type"]
            .iter()
            .any(|tag| line.trim_start().starts_with(&format!("<{tag}")))
    };
    text.lines().filter(tells).map(|line| format!("{}\n", line.trim())).collect()
}

/// Both conversions, value by value of what virt-v2v wrote, and its new files.
fn compared(was: &Path, peer: &Path, ours: &Path) -> String {
    let (was, peer, ours) = (contents(was), contents(peer), contents(ours));
    let mut text = String::new();
    for (name, content) in peer.iter().filter(|(name, _)| name.starts_with("system/")) {
        let text_of = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
            files.get(name).map(|content| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
        };
        if !["SYSTEM", "SOFTWARE"].iter().any(|hive| name.ends_with(&format!("/config/{hive}"))) {
            if was.get(name) != Some(content) {
                let same = if ours.get(name) == Some(content) { "same" } else { "theirs" };
                writeln!(text, "{same} file {name}").unwrap();
            }
            continue;
        }
        let (old, theirs, own) = (text_of(&was), text_of(&peer), text_of(&ours));
        let (old, theirs, own) = (values(&old), values(&theirs), values(&own));
        for (key, found) in &theirs {
            for (value, data) in found {
                let in_tree = |tree: &std::collections::BTreeMap<&str, std::collections::BTreeMap<&str, String>>| {
                    tree.get(key).and_then(|values| values.get(value)).cloned()
                };
                if in_tree(&old).as_ref() == Some(data) {
                    continue;
                }
                match in_tree(&own) {
                    Some(same) if same == *data => writeln!(text, "same {key} {value}{data}").unwrap(),
                    Some(other) => writeln!(text, "differs {key} {value}{data}; ours {other}").unwrap(),
                    None => writeln!(text, "theirs {key} {value}{data}").unwrap(),
                }
            }
        }
        let gone: BTreeSet<_> = old.keys().filter(|key| !theirs.contains_key(*key)).collect();
        for key in gone {
            writeln!(text, "{} {key}", if own.contains_key(key) { "removed by them" } else { "removed by both" })
                .unwrap();
        }
    }
    text
}

fn check(case: &Case) {
    let Some(data) = test_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (system, boot) = files(&data, case, folder);
    let disk = WindowsDisk::make(&folder.join("disk.raw"), case.layout, case.size, case.heads, &system, &boot).unwrap();
    let library = library(case, folder);
    let (_, converted) = convert(&disk.path, &library, &folder.join("out"), "ours");
    let mut found = inspected(&converted, folder);
    println!("{}: virt-inspector on the result:\n{found}", case.name);

    // Debian has no virtio for XP in this tree, so that there is nothing to compare.
    if case.drivers != "none" {
        let tools = folder.join("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join("rhsrvany.exe"), program(0x14c)).unwrap();
        fs::write(tools.join("pnp_wait.exe"), program(0x14c)).unwrap();
        let output = folder.join("peer");
        fs::create_dir(&output).unwrap();
        let mut peer = guestfs("virt-v2v", folder);
        peer.env("VIRT_TOOLS_DATA_DIR", &tools).env("VIRTIO_WIN", folder.join("medium"));
        peer.args(["-i", "disk"])
            .arg(&disk.path)
            .args(["-o", "local", "-of", "raw", "-on", "peer", "-os"])
            .arg(&output);
        for line in ran(peer.output().unwrap()).lines().filter(|line| line.starts_with('[')) {
            println!("virt-v2v: {line}");
        }
        let place = |name: &str| folder.join(name);
        disk.read(&disk.path, &place("was")).unwrap();
        disk.read(&output.join("peer-sda"), &place("theirs")).unwrap();
        disk.read(&converted, &place("own")).unwrap();
        found.push_str(&compared(&place("was"), &place("theirs"), &place("own")));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/peers-{}.txt", case.name));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &found).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    let first = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "first difference from {}: {first:?}", golden.display());
    let same = found.lines().filter(|line| line.starts_with("same ")).count();
    println!("{}: {same} of {} things that virt-v2v wrote are as ours", case.name, found.lines().count());
}

#[test]
#[ignore = "full row"]
fn windows_10_as_virt_inspector_and_virt_v2v_have_it() {
    check(&TEN_WITHOUT_LOGS);
}

#[test]
#[ignore = "full row"]
fn windows_7_as_virt_inspector_and_virt_v2v_have_it() {
    check(&SEVEN);
}

#[test]
#[ignore = "full row"]
fn windows_xp_as_virt_inspector_has_it() {
    check(&XP);
}

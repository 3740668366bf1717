//! `vconverter boot-image` as an operator types it, with a package archive, drivers and a kernel made for the test. No
//! machine is started.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder with the programs, a cache that shares the real one's kernel, and a package client of its own.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        // Any static program stands in for those of the inside.
        for name in ["bin/vconverter", "bin/vconverter-bootenv", "bin/vconverter-agent"] {
            fs::create_dir_all(site.path("bin")).unwrap();
            fs::copy(env!("CARGO_BIN_EXE_vconverter"), site.path(name)).unwrap();
        }
        fs::create_dir_all(site.path("cache/vconverter")).unwrap();
        let kernel = bootimage::load_kernel(&bootimage::KernelChoice::Cached, &mut |line| println!("{line}")).unwrap();
        let kernels = kernel.modules.ancestors().find(|path| path.ends_with("kernel")).unwrap();
        std::os::unix::fs::symlink(kernels, site.path("cache/vconverter/kernel")).unwrap();
        site.write_package_client();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An archive in the folder `archive`, and the configuration of a package client that knows no other.
    fn write_package_client(&self) {
        for folder in ["archive", "apt/lists/partial", "apt/cache/archives/partial", "apt/etc"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        let sources = format!("deb [trusted=yes] file:{} ./\n", self.path("archive").display());
        fs::write(self.path("apt/etc/sources.list"), sources).unwrap();
        fs::write(self.path("apt/status"), "").unwrap();
        let apt = self.path("apt").display().to_string();
        let configuration = format!(
            "Dir::State \"{apt}\";\nDir::State::status \"{apt}/status\";\nDir::Cache \"{apt}/cache\";\n\
             Dir::Etc::sourcelist \"{apt}/etc/sources.list\";\nDir::Etc::sourceparts \"-\";\nAPT::Sandbox::User \"root\";\n"
        );
        fs::write(self.path("apt.conf"), configuration).unwrap();
        fs::write(self.path("archive/Packages"), "").unwrap();
    }

    /// Makes a package of `files` (path and content) and lists it in the archive.
    fn add_package(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let tree = self.path(&format!("tree-{name}"));
        let control = format!(
            "Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: test\n"
        );
        write(&tree.join("DEBIAN/control"), control.as_bytes());
        for (path, content) in files {
            write(&tree.join(path), content);
        }
        let file = self.path(&format!("archive/{name}_1.0-1_all.deb"));
        run(Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "-b"]).arg(&tree).arg(&file));
        let sum = run(Command::new("sha256sum").arg(&file));
        let size = fs::metadata(&file).unwrap().len();
        let listed = format!(
            "{control}Filename: ./{name}_1.0-1_all.deb\nSize: {size}\nSHA256: {}\n\n",
            sum.split_whitespace().next().unwrap()
        );
        let packages = self.path("archive/Packages");
        let before = fs::read_to_string(&packages).unwrap();
        fs::write(&packages, before + &listed).unwrap();
        file
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.path("apt.conf")).env("XDG_CACHE_HOME", self.path("cache"));
        command.current_dir(self.folder.path());
        command
    }

    fn vconverter(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(self.path("bin/vconverter"));
        let output = command.args(["--data-dir", "data", "boot-image"]).args(arguments).output().unwrap();
        println!("{arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        output
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Modaliases of a BCM5709 and of a PERC H700.
const REPORT: &str = "pci:v000014E4d00001639sv00001028sd00000235bc02sc00i00\n\
                      pci:v00001000d00000079sv00001028sd00001F16bc01sc04i00\n";

fn kernel() -> bootimage::Kernel {
    bootimage::load_kernel(&bootimage::KernelChoice::Cached, &mut |_| {}).unwrap()
}

#[test]
fn firmware_comes_from_packages_and_what_is_missing_is_told() {
    let site = Site::new();
    fs::write(site.path("report"), REPORT).unwrap();
    let build = ["build", "--output", "boot", "--for-machine", "report"];
    run(site.command("apt-get").arg("update"));
    let kernel = format!("./{}", "kernel.deb");
    make_kernel_package(&site.path("kernel.deb"), &site.path("kernel-tree"), &["bnx2", "megaraid_sas", "sd_mod"]);

    let without = site.vconverter(&[&build[..], &["--kernel", &kernel]].concat());
    assert!(without.status.success());
    let told = said(&without);
    assert!(told.contains("devices of bnx2 (NetXtreme II BCM5709 Gigabit Ethernet"), "{told}");
    assert!(told.contains("the package sources lack") && told.contains("firmware-bnx2"), "{told}");
    let asked = site.vconverter(&["inspect", "boot", "--supports", "14e4:1639"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("not supported: it does not work without firmware"));

    let files = ["mips-09-6.2.1b", "rv2p-09-6.0.17", "rv2p-09ax-6.0.17", "mips-06-6.2.3", "rv2p-06-6.0.15"];
    let files: Vec<String> = files.iter().map(|file| format!("lib/firmware/bnx2/bnx2-{file}.fw")).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|file| (file.as_str(), &b"stand-in"[..])).collect();
    site.add_package("firmware-bnx2", &files);
    run(site.command("apt-get").arg("update"));
    let with = site.vconverter(&[&["--json"], &build[..], &["--kernel", &kernel]].concat());
    assert!(with.status.success() && !said(&with).contains("missing"), "{}", said(&with));
    for file in json(&with)["firmware"].as_array().unwrap() {
        assert_eq!((&file["from"], &file["missing"]), (&"firmware-bnx2_1.0-1".into(), &false.into()), "{file}");
    }
    let asked = site.vconverter(&["inspect", "boot", "--supports", "14e4:1639", "--supports", "1000:0079", "--json"]);
    assert!(asked.status.success());
    let answers = json(&asked);
    assert_eq!(answers[0]["name"], "NetXtreme II BCM5709 Gigabit Ethernet");
    assert_eq!(answers[0]["modules"][0]["firmware"].as_array().unwrap().len(), 5);
    assert_eq!(answers[1]["modules"][0]["module"], "megaraid_sas");
}

/// A kernel package with these modules of the real one, each compressed in another way, and what they need.
fn make_kernel_package(file: &Path, tree: &Path, modules: &[&str]) {
    let kernel = kernel();
    let folder = tree.join("lib/modules").join(&kernel.release);
    let listed = fs::read_to_string(kernel.modules.join("modules.dep")).unwrap();
    let wanted = |line: &&str| {
        let name = line.split(".ko").next().unwrap().rsplit('/').next().unwrap().replace('-', "_");
        modules.contains(&name.as_str())
    };
    let mut paths: Vec<&str> =
        listed.lines().filter(wanted).flat_map(|line| line.split([':', ' '])).filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    for (number, path) in paths.iter().enumerate() {
        write(&folder.join(path), &fs::read(kernel.modules.join(path)).unwrap());
        match number % 3 {
            0 => drop(run(Command::new("xz").arg("-0").arg(folder.join(path)))),
            1 => drop(run(Command::new("zstd").args(["-q", "--rm"]).arg(folder.join(path)))),
            _ => {}
        }
    }
    for index in ["modules.builtin", "modules.order"] {
        fs::copy(kernel.modules.join(index), folder.join(index)).unwrap();
    }
    write(&tree.join("boot").join(format!("vmlinuz-{}", kernel.release)), &fs::read(&kernel.vmlinuz).unwrap());
    write(
        &tree.join("DEBIAN/control"),
        b"Package: linux-image-x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: test\n",
    );
    run(Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "-b"]).arg(tree).arg(file));
}

#[test]
fn added_drivers_are_in_and_those_for_another_kernel_are_refused() {
    let site = Site::new();
    let kernel = kernel();
    fs::write(site.path("report"), "pci:v00001000d00000079sv00001028sd00001F16bc01sc04i00\n").unwrap();
    make_kernel_package(&site.path("kernel.deb"), &site.path("kernel-tree"), &["megaraid_sas", "sd_mod", "libphy"]);
    // tg3 is no part of that kernel package: it comes as a file, and bnx2 as a package.
    let module =
        |name: &str| fs::read(kernel.modules.join(format!("kernel/drivers/net/ethernet/broadcom/{name}"))).unwrap();
    fs::write(site.path("tg3.ko"), module("tg3.ko")).unwrap();
    run(Command::new("xz").arg("-0").arg(site.path("tg3.ko")));
    site.add_package(
        "bnx2-modules",
        &[(&format!("lib/modules/{}/updates/bnx2.ko", kernel.release), &module("bnx2.ko"))],
    );
    // The same module, said to be for another kernel of the same length of name.
    let other = "9".repeat(kernel.release.len());
    let at = |bytes: &[u8]| bytes.windows(9).position(|w| w == b"vermagic=").unwrap() + 9;
    let mut foreign = module("tg3.ko");
    let start = at(&foreign);
    foreign[start..start + other.len()].copy_from_slice(other.as_bytes());
    fs::write(site.path("foreign.ko"), &foreign).unwrap();
    let base = ["build", "--output", "boot", "--for-machine", "report", "--kernel", "./kernel.deb"];

    let refused = site.vconverter(&[&base[..], &["--add-driver", "foreign.ko"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let told = said(&refused);
    assert!(
        told.contains(&other) && told.contains(&kernel.release) && told.contains("--kernel linux-image-"),
        "{told}"
    );
    assert!(!site.path("boot/initramfs.img").exists());

    let plain = site.vconverter(&base);
    assert!(plain.status.success());
    assert_eq!(site.vconverter(&["inspect", "boot", "--supports", "14e4:1657"]).status.code(), Some(1));
    let added = ["--add-driver", "tg3.ko.xz", "--add-driver", "archive/bnx2-modules_1.0-1_all.deb"];
    let made = site.vconverter(&[&base[..], &added].concat());
    assert!(made.status.success());
    assert!(site.vconverter(&["inspect", "boot", "--supports", "14e4:1657"]).status.success());
    let bnx2 = site.vconverter(&["--json", "inspect", "boot", "--supports", "14e4:1639"]);
    assert_eq!(json(&bnx2)[0]["modules"][0]["present"], true);
}

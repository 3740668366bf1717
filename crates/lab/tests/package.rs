//! The Debian package: made, read by Debian's tools, installed into a root of its own, removed and purged there.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The folder of our programs, which `make build` makes.
fn programs() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let found = executable.ancestors().skip(1).take(2).find(|folder| folder.join("vconverter").is_file());
    found.unwrap_or_else(|| panic!("no program vconverter near {}: make build", executable.display())).to_path_buf()
}

/// A command whose files seem to be root's.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("fakeroot");
    command.arg(program);
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn text(command: &mut Command) -> String {
    String::from_utf8(succeed(command).stdout).unwrap()
}

fn make(folder: &Path) -> PathBuf {
    let mut command = Command::new(repository().join("tools/package"));
    let package = text(command.arg(programs()).arg(folder).env("SOURCE_DATE_EPOCH", "1790000000"));
    PathBuf::from(package.trim())
}

/// A root into which dpkg installs, without a change of root for the package's scripts.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for below in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "var/lib", "usr/lib"] {
            std::fs::create_dir_all(folder.path().join(below)).unwrap();
        }
        std::fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        std::fs::write(folder.path().join("etc/group"), "root:x:0:\nkvm:x:104:\n").unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        Self(folder)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn dpkg(&self, arguments: &[&str]) {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let root = format!("--root={}", self.0.path().display());
        // What it depends on is on the machine of this test, not in that root.
        succeed(
            as_root("dpkg")
                .env("PATH", path)
                .args([&root, "--force-script-chrootless,depends,not-root"])
                .args(arguments),
        );
    }
}

#[test]
fn the_package_is_installed_removed_and_purged_and_only_purging_takes_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let package = make(folder.path());
    let again = tempfile::tempdir().unwrap();
    assert!(std::fs::read(&package).unwrap() == std::fs::read(make(again.path())).unwrap(), "the same bytes again");
    let fields = text(Command::new("dpkg-deb").args(["-f"]).arg(&package));
    assert!(fields.contains("Package: vconverter\n") && fields.contains("Recommends: qemu-system-x86"), "{fields}");
    let listed = text(Command::new("dpkg-deb").args(["-c"]).arg(&package));
    println!("{} bytes, {} entries", package.metadata().unwrap().len(), listed.lines().count());
    for path in [
        "./usr/bin/vconverter -> ../lib/vconverter/vconverter",
        "./usr/lib/vconverter/vconverter-agent",
        "./usr/lib/vconverter/vconverter-bootenv",
        "./usr/lib/vconverter/vconverter-firstboot-amd64.exe",
        "./usr/lib/vconverter/vconverter-firstboot-x86.exe",
        "./lib/systemd/system/vconverter.service",
        "./usr/share/man/man1/vconverter-convert.1.gz",
        "./usr/share/bash-completion/completions/vconverter",
        "./usr/share/doc/vconverter/copyright",
        "./usr/share/doc/vconverter/third-party.gz",
    ] {
        assert!(listed.lines().any(|line| line.ends_with(path)), "{path}\n{listed}");
    }
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");

    let root = Root::new();
    root.dpkg(&["--install", package.to_str().unwrap()]);
    let passwd = std::fs::read_to_string(root.path("etc/passwd")).unwrap();
    assert!(passwd.contains("vconverter:x:"), "{passwd}");
    let settings = root.path("etc/vconverter/vconverter.toml");
    assert_eq!(settings.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    if rustix::process::geteuid().is_root() {
        let group = std::fs::read_to_string(root.path("etc/group")).unwrap();
        let line = group.lines().find(|line| line.starts_with("vconverter:")).unwrap();
        assert_eq!(line.split(':').nth(2).unwrap(), settings.metadata().unwrap().gid().to_string());
    }
    let program = root.path("usr/bin/vconverter");
    assert!(text(Command::new(&program).arg("--version")).starts_with("vconverter "));
    let checked =
        succeed(Command::new(&program).args(["config", "check"]).arg(&settings).env_remove("VCONVERTER_DATA"));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("good"));
    let unit = root.path("lib/systemd/system/vconverter.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert!(started.starts_with("/usr/bin/vconverter ") && started.ends_with(" serve"), "{started}");

    let state = root.path("var/lib/vconverter");
    std::fs::create_dir_all(state.join("identity")).unwrap();
    std::fs::create_dir_all(state.join("web1")).unwrap();
    std::fs::write(state.join("controller.db"), "x").unwrap();
    std::fs::write(state.join("web1/web1-disk0.qcow2"), "x").unwrap();
    root.dpkg(&["--remove", "vconverter"]);
    assert!(!program.exists() && state.join("controller.db").exists() && settings.exists(), "removing keeps the state");
    root.dpkg(&["--purge", "vconverter"]);
    assert!(!state.join("controller.db").exists() && !state.join("identity").exists() && !settings.exists());
    assert!(state.join("web1/web1-disk0.qcow2").exists(), "a machine that was made is never removed");
}

#[test]
fn the_services_are_confined() {
    for (unit, exposure_max) in [("vconverter.service", 2.0), ("vconverter-pxe.service", 2.5)] {
        let path = repository().join("packaging").join(unit);
        let told = text(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(path));
        let level = told.lines().find_map(|line| line.split("exposure level for ").nth(1)).unwrap();
        let level: f64 = level.split_whitespace().nth(1).unwrap().parse().unwrap();
        println!("{unit}: {level}");
        assert!(level <= exposure_max, "{unit}: {level}");
    }
}

//! Bad input as the program meets it: each ends with one clear line and an exit code, or simply works; nothing
//! half-made has a final name, and the source is as it was.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const MIB: u64 = 1 << 20;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of `size` with `data` bytes of noise, in pieces of 1 MiB every `every`.
    fn disk(&self, name: &str, size: u64, pieces: u64, every: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for piece in 0..pieces {
            let noise = (0..MIB / 8).flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            });
            file.write_all_at(&noise.collect::<Vec<u8>>(), piece * every).unwrap();
        }
        path
    }

    fn command(&self, source: &Path, output: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vconverter"));
        command.args(["--json", "convert", "--no-prove-boot", "--name", "vm", "--output"]).arg(output).args(more);
        command.arg(source).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn convert(&self, source: &Path, more: &[&str]) -> Output {
        self.command(source, &self.path("out"), more).output().unwrap()
    }

    /// Runs to a failure: its code and its one line.
    fn fail(&self, source: &Path, more: &[&str]) -> (i32, String) {
        let output = self.convert(source, more);
        assert!(!self.path("out/vm").exists(), "something has the final name");
        told(&output)
    }

    fn nothing_was_made(&self) {
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 0, "something was left behind");
    }
}

fn told(output: &Output) -> (i32, String) {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    let code = output.status.code().unwrap();
    assert_ne!(code, 0, "{message}");
    (code, message)
}

fn outcome(output: &Output) -> Value {
    let lines = String::from_utf8_lossy(&output.stdout);
    let last = lines.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["event"], "done", "{last}");
    last["outcome"].clone()
}

fn is_equal(source: &Path, image: &Path) {
    let check = Command::new("qemu-img").args(["check", "-q"]).arg(image).status().unwrap();
    assert!(check.success(), "qemu-img check finds errors in {}", image.display());
    let mut compare = Command::new("qemu-img");
    let compare = compare.args(["compare", "-f", "raw", "-F", "qcow2"]).args([source, image]).output().unwrap();
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
}

/// Reads events until the copy is some way in.
fn wait_for_copy(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it copied");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "progress" && event["done"].as_u64().unwrap() > 0 {
            return lines;
        }
    }
}

fn partitioned(path: &Path, table: &str) {
    let mut child = Command::new("sfdisk").args(["-q", "-f"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_no_disk_is_refused_by_name_and_nothing_is_made() {
    let bench = Bench::new();
    fs::write(bench.path("empty.img"), "").unwrap();
    fs::create_dir(bench.path("folder")).unwrap();
    let mut cases =
        vec![("absent.img", 3, "No such file"), ("empty.img", 4, "is empty"), ("folder", 4, "expected a file")];
    for (format, name) in [("vmdk", "VMDK"), ("vhdx", "VHDX"), ("vdi", "VDI"), ("vpc", "VHD")] {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format]).arg(bench.path(format)).arg("4M");
        assert!(create.status().unwrap().success());
        cases.push((format, 4, name));
    }
    for (source, code, words) in cases {
        let (found, message) = bench.fail(&bench.path(source), &[]);
        assert!(found == code && message.contains(words) && message.contains(source), "{found} {message}");
    }
    bench.nothing_was_made();
}

#[test]
fn partition_tables_that_make_no_sense_are_told_with_their_place() {
    let bench = Bench::new();
    let overlapping = bench.disk("overlapping.raw", 64 * MIB, 0, 0);
    let mut sector = [0; 66];
    for (entry, start) in [(0, 2048_u32), (16, 20000)] {
        sector[entry + 4] = 0x83;
        sector[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        sector[entry + 12..entry + 16].copy_from_slice(&40960_u32.to_le_bytes());
    }
    sector[64..].copy_from_slice(&[0x55, 0xaa]);
    File::options().write(true).open(&overlapping).unwrap().write_all_at(&sector, 446).unwrap();
    let (code, message) = bench.fail(&overlapping, &[]);
    assert!(code == 4 && message.contains("overlaps partition 2"), "{message}");

    for (label, length) in [("gpt", 5_u64 * 512), ("gpt", 3 * MIB), ("dos", 3 * MIB)] {
        let truncated = bench.disk("truncated.raw", 64 * MIB, 0, 0);
        partitioned(&truncated, &format!("label: {label}\nstart=2048, size=20480\n"));
        File::options().write(true).open(&truncated).unwrap().set_len(length).unwrap();
        let (code, message) = bench.fail(&truncated, &[]);
        assert!(code == 4 && message.contains("truncated"), "{message}");
    }
    bench.nothing_was_made();
}

#[test]
fn a_busy_name_a_missing_folder_and_a_bad_name_are_refused() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 4 * MIB, 1, MIB);
    fs::write(bench.path("out/vm"), "mine").unwrap();
    let (code, message) = told(&bench.convert(&disk, &[]));
    assert!(code == 4 && message.contains("exists already"), "{message}");
    assert_eq!(fs::read(bench.path("out/vm")).unwrap(), b"mine");
    let (code, message) = told(&bench.command(&disk, &bench.path("nowhere"), &[]).output().unwrap());
    assert!(code == 4 && message.contains("output folder"), "{message}");
    assert!(!bench.path("nowhere").exists());
}

#[test]
fn a_disk_without_a_guest_is_converted_as_it_is_and_its_source_stays_as_it_was() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 64 * MIB, 8, 3 * MIB);
    let before = (fs::read(&disk).unwrap(), disk.metadata().unwrap().mtime_nsec());
    let made = outcome(&bench.convert(&disk, &["--verify"]));
    assert_eq!((&made["verified"], &made["incomplete"]), (&true.into(), &false.into()));
    assert!(made["warnings"].to_string().contains("converted as it is"), "{made}");
    is_equal(&disk, &bench.path("out/vm/vm-disk0.qcow2"));
    assert!(before == (fs::read(&disk).unwrap(), disk.metadata().unwrap().mtime_nsec()), "the source was changed");
}

#[test]
fn an_image_that_shrinks_while_it_is_read_is_told_and_never_padded() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 2048 * MIB, 400, 5 * MIB);
    let mut child = bench.command(&disk, &bench.path("out"), &[]).spawn().unwrap();
    let lines = wait_for_copy(&mut child);
    File::options().write(true).open(&disk).unwrap().set_len(6 * MIB).unwrap();
    let copying = std::thread::spawn(move || lines.lines().count());
    let (code, message) = told(&child.wait_with_output().unwrap());
    copying.join().unwrap();
    assert!(code != 0 && (message.contains("became shorter") || message.contains("written since")), "{message}");
    assert!(!bench.path("out/vm").exists());
}

#[test]
fn a_killed_conversion_goes_on_and_two_at_once_are_kept_apart() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 2048 * MIB, 400, 5 * MIB);
    let mut child = bench.command(&disk, &bench.path("out"), &[]).spawn().unwrap();
    let lines = wait_for_copy(&mut child);
    let stop = |signal: &str, child: &Child| {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    };
    stop("-STOP", &child);
    let (code, message) = bench.fail(&disk, &[]);
    assert!(code == 4 && message.contains("another conversion"), "{message}");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
    assert!(!bench.path("out/vm").exists());

    // Ctrl-C, on the way.
    let mut child = bench.command(&disk, &bench.path("out"), &[]).spawn().unwrap();
    let lines = wait_for_copy(&mut child);
    stop("-INT", &child);
    let copying = std::thread::spawn(move || lines.lines().count());
    let (code, message) = told(&child.wait_with_output().unwrap());
    copying.join().unwrap();
    assert!(code == 130 && message.contains("goes on from there"), "{code} {message}");

    let made = outcome(&bench.convert(&disk, &["--verify"]));
    assert_eq!(made["verified"], true);
    is_equal(&disk, &bench.path("out/vm/vm-disk0.qcow2"));
}

#[test]
fn a_source_that_was_written_since_is_not_gone_on_with() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 2048 * MIB, 400, 5 * MIB);
    let mut child = bench.command(&disk, &bench.path("out"), &[]).spawn().unwrap();
    let lines = wait_for_copy(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
    // Reading it, and who may read it, is nobody's business.
    File::open(&disk).unwrap().read_exact_at(&mut [0; 4096], 0).unwrap();
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o640)).unwrap();
    let mut child = bench.command(&disk, &bench.path("out"), &[]).spawn().unwrap();
    let lines = wait_for_copy(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);

    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    let (code, message) = bench.fail(&disk, &[]);
    assert!(code == 4 && message.contains("written since"), "{message}");
    let partial = bench.path("out/.vm.partial");
    let todo = format!("remove {} to start anew, or choose another --name", partial.display());
    assert!(message.contains(&todo), "{message}");
    fs::remove_dir_all(partial).unwrap();
    assert!(bench.convert(&disk, &[]).status.success(), "what the message says is of no help");
}

#[test]
fn a_missing_qemu_is_told_before_anything_is_copied_where_it_is_needed() {
    let bench = Bench::new();
    let (plain, guest) = (bench.disk("plain.raw", 16 * MIB, 4, MIB), bench.disk("guest.raw", 64 * MIB, 0, 0));
    assert!(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&guest).status().unwrap().success());
    let without = |source: &Path, more: &[&str]| {
        bench.command(source, &bench.path("out"), more).env("PATH", bench.path("empty")).output().unwrap()
    };
    for output in [without(&guest, &[]), without(&guest, &["--dry-run"]), without(&plain, &["--prove-boot"])] {
        let (code, message) = told(&output);
        assert!(code == 4 && message.contains("qemu-system-x86 qemu-utils"), "{message}");
    }
    bench.nothing_was_made();

    let mut command = bench.command(&plain, &bench.path("out"), &["--verify"]);
    // Without a guest nothing needs QEMU, and by default its absence is no failure either.
    let arguments: Vec<_> = command.get_args().filter(|a| *a != "--no-prove-boot").map(|a| a.to_owned()).collect();
    command = Command::new(command.get_program());
    let output = command.args(arguments).env("PATH", bench.path("empty")).output().unwrap();
    let made = outcome(&output);
    assert_eq!((&made["verified"], &made["proof"]["verdict"]), (&true.into(), &"not-tried".into()), "{made}");
    is_equal(&plain, &bench.path("out/vm/vm-disk0.qcow2"));
}

/// A loop device, detached when it is dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self(path.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn unreadable_sectors_stop_a_copy_or_are_recorded_and_never_called_verified() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 16 * MIB, 16, MIB);
    let Some(device) = Loop::over(&disk) else {
        println!("skipped: no loop device can be had here");
        return;
    };
    // The device keeps its size: what is behind the file's end cannot be read.
    File::options().write(true).open(&disk).unwrap().set_len(10 * MIB).unwrap();
    let (code, message) = bench.fail(&device.0, &[]);
    assert!(code == 1 && message.contains("0xa00000") && message.contains("--skip-unreadable"), "{message}");

    let output = bench.convert(&device.0, &["--skip-unreadable", "--verify"]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    let made = outcome(&output);
    assert_eq!((&made["incomplete"], &made["verified"]), (&true.into(), &false.into()), "{made}");
    assert_eq!(made["disks"][0]["unreadable"], 6 * MIB, "{made}");
}

#[test]
fn a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room() {
    let bench = Bench::new();
    let disk = bench.disk("disk.raw", 512 * MIB, 100, 5 * MIB);
    let script = r#"set -e; mount -t tmpfs -o size=64m tmpfs "$1" || exit 99; shift
        if "$@" >/dev/null 2>first; then exit 98; fi; cat first >&2; [ $(wc -l <first) = 1 ]
        [ ! -e out/vm ]; mount -o remount,size=256m out; exec "$@""#;
    let inner = bench.command(&disk, Path::new("out"), &[]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", "out"]).arg(inner.get_program()).args(inner.get_args());
    let output = command.current_dir(bench.folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !Path::new("/proc/self/ns/mnt").exists() || matches!(output.status.code(), Some(99)) || said.contains("unshare:")
    {
        println!("skipped: no mount namespace can be had here: {said}");
        return;
    }
    assert!(output.status.success(), "{:?} {said}", output.status);
    assert!(said.contains("make room and give the same command again"), "{said}");
    assert_eq!(outcome(&output)["incomplete"], false);
}

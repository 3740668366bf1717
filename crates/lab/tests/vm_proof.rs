//! Boot proofs that do not pass, on real VMs: each failure that the recognisers know, what they do not know, limits, and
//! what is left of a proof that is killed. Each prints what it saw, and keeps screen and serial log below the target
//! folder. Machines of the lab need root.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lab::{Kind, SourceMachine, hash_file};
use serde_json::Value;

/// For what takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn vconverter(output: &Path, disk: &Path, options: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("vconverter");
    let mut command = Command::new(program);
    command.args(["--json", "convert", "--name", "vm", "--output"]).arg(output).args(options).arg(disk);
    command.stdin(Stdio::null());
    command
}

/// A conversion that went up to its boot proof.
struct Proven {
    status: ExitStatus,
    /// `proof.json`.
    proof: Value,
    /// The last event.
    last: Value,
}

impl Proven {
    /// Converts `disk` and checks what holds for every proof: its files are kept, source and replica are as they were.
    fn of(name: &str, disk: &Path, options: &[&str]) -> Self {
        let output = tempfile::tempdir().unwrap();
        let (start, source) = (Instant::now(), hash_file(disk).unwrap());
        let mut child = vconverter(output.path(), disk, &[&["--prove-boot"], options].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (partial, result) = (output.path().join(".vm.partial"), output.path().join("vm"));
        let (mut before, mut last) = (BTreeMap::new(), Value::Null);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            last = serde_json::from_str(&line.unwrap()).unwrap();
            if last["step"] == "prove" {
                before = images(&partial);
            }
            if last["event"] == "log" || last["event"] == "warning" {
                println!("[{:>4} s] {}", start.elapsed().as_secs(), last["message"].as_str().unwrap());
            }
        }
        let status = child.wait().unwrap();
        // A proof that failed keeps its conversion from getting its name.
        let folder = if result.exists() { result } else { partial };
        let proof = fs::read(folder.join("proof/proof.json")).unwrap_or_else(|e| panic!("{name}: {e}: {last}"));
        let proof: Value = serde_json::from_slice(&proof).unwrap();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm_proof").join(name);
        fs::create_dir_all(&kept).unwrap();
        for file in ["screen.png", "serial.log", "proof.json"] {
            fs::copy(folder.join("proof").join(file), kept.join(file)).unwrap();
        }
        println!(
            "{name}: {} after {:.0} s in the VM, {} s in all: {}\n  screen and serial log: {}",
            proof["verdict"].as_str().unwrap(),
            proof["seconds"].as_f64().unwrap(),
            start.elapsed().as_secs(),
            proof["evidence"].as_str().unwrap(),
            kept.display()
        );
        let png = fs::read(folder.join("proof/screen.png")).unwrap();
        assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
        assert!(!folder.join("proof-disk0.qcow2").exists(), "the throw-away overlay was not thrown away");
        assert_eq!(hash_file(disk).unwrap(), source, "the source was changed");
        assert!(!before.is_empty());
        if proof["verdict"] == "failed" || before.len() == 1 {
            assert_eq!(images(&folder), before, "the proof changed what it was to prove");
        }
        Self { status, proof, last }
    }

    fn evidence(&self) -> &str {
        self.proof["evidence"].as_str().unwrap()
    }

    /// Failed, and the operator is told why.
    fn failed_with(&self, meaning: &str) {
        assert_eq!(self.proof["verdict"], "failed", "{}", self.proof);
        assert!(self.evidence().contains(meaning), "{}", self.evidence());
        assert_eq!(self.status.code(), Some(1), "{}", self.last);
        let error = self.last["error"].as_str().unwrap();
        assert!(error.contains("boot proof failed") && error.contains(meaning), "{error}");
    }

    /// Neither passed nor failed: made, with reservations.
    fn inconclusive_with(&self, reason: &str) {
        assert_eq!(self.proof["verdict"], "inconclusive", "{}", self.proof);
        assert!(self.evidence().contains(reason), "{}", self.evidence());
        assert_eq!(self.status.code(), Some(6), "{}", self.last);
        assert_eq!(self.last["outcome"]["proof"]["verdict"], "inconclusive");
    }
}

/// Hashes of replicas and fix-ups in a folder.
fn images(folder: &Path) -> BTreeMap<PathBuf, String> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let images = files.filter(|path| name(path).ends_with(".qcow2") && !name(path).starts_with("proof-"));
    images.map(|path| (name(&path).into(), format!("{:?}", hash_file(&path).unwrap()))).collect()
}

/// A disk of 8 MiB that starts with `code`, and is marked as bootable if there is any.
fn disk_with(folder: &Path, code: &[u8]) -> PathBuf {
    let path = folder.join("disk.raw");
    let disk = fs::File::create(&path).unwrap();
    disk.set_len(8 << 20).unwrap();
    if !code.is_empty() {
        disk.write_all_at(code, 0).unwrap();
        disk.write_all_at(&[0x55, 0xaa], 510).unwrap();
    }
    path
}

/// A boot sector that prints `text` and sleeps for ever.
fn printing(text: &str) -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x17, 0x7c, // mov si, text
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x08, // jz end
        0xb4, 0x0e, 0x31, 0xdb, 0xcd, 0x10, // print al
        0xeb, 0xf3, // jmp next
        0xf4, 0xeb, 0xfd, // end: hlt, jmp end
    ];
    code.extend(text.bytes().chain([0]));
    assert!(code.len() < 440);
    code
}

/// A boot sector that prints one character after another, at each tick of the clock.
const COUNTING: [u8; 21] = [
    0xb0, 0x30, // start: mov al, '0'
    0xb4, 0x0e, 0x31, 0xdb, 0x50, 0xcd, 0x10, 0x58, // next: print al
    0xfe, 0xc0, 0x3c, 0x7a, 0x76, 0x02, 0xb0, 0x30, // inc al; past 'z' start again
    0xf4, 0xeb, 0xed, // hlt, jmp next
];

#[test]
fn a_bios_without_boot_device_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk_with(folder.path(), &[]);
    Proven::of("no-boot-device-bios", &disk, &[]).failed_with("the firmware found no disk to boot from");
}

#[test]
fn an_unknown_screen_never_passes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk_with(folder.path(), &printing("Welcome to an operating system that nobody knows"));
    let proven = Proven::of("unknown-screen", &disk, &["--proof-time", "30"]);
    proven.inconclusive_with("last words: \"Welcome to an operating system that nobody knows\"");
    proven.inconclusive_with("nothing changed in the last");
}

#[test]
fn a_guest_that_changes_its_screen_to_the_limit_is_inconclusive() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk_with(folder.path(), &COUNTING);
    let proven = Proven::of("changing-screen", &disk, &["--proof-time", "15"]);
    proven.inconclusive_with("no evidence within 15 s, and the guest was still changing its screen");
}

#[test]
#[ignore = "waits until a screen counts as stable: two minutes"]
fn a_stable_unknown_screen_ends_the_proof_before_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk_with(folder.path(), &printing("Hello"));
    let proven = Proven::of("stable-screen", &disk, &[]);
    proven.inconclusive_with("nothing known was seen, and nothing changed for");
    assert!(proven.proof["seconds"].as_f64().unwrap() < 900.0);
}

#[test]
#[ignore = "boots UEFI: a minute"]
fn a_uefi_without_boot_loader_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, part) = (folder.path().join("disk.raw"), folder.path().join("esp"));
    let file = fs::File::create(&disk).unwrap();
    file.set_len(64 << 20).unwrap();
    fs::File::create(&part).unwrap().set_len(48 << 20).unwrap();
    let run = |script: String| assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
    run(format!("echo 'start=2048, size=98304, type=U' | /sbin/sfdisk -q -X gpt {}", disk.display()));
    // A loader that only a boot entry of the source's firmware led to.
    let esp = part.display();
    run(format!(
        "/sbin/mkfs.vfat -F 32 {esp} >/dev/null; mmd -i {esp} ::/EFI ::/EFI/lost; echo x | mcopy -i {esp} - ::/EFI/lost/loader.efi"
    ));
    file.write_all_at(&fs::read(&part).unwrap(), 1 << 20).unwrap();
    Proven::of("no-boot-device-uefi", &disk, &[]).failed_with("the UEFI firmware found no boot loader");
}

/// A machine of the lab with a changed `grub.cfg`, and its proof.
fn with_menu(name: &str, kind: Kind, change: impl Fn(&str) -> String) -> Proven {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(kind, folder.path()).unwrap();
    let before = machine.text("/boot/grub/grub.cfg").unwrap();
    let after = change(&before);
    assert_ne!(before, after);
    machine.replace("/boot/grub/grub.cfg", &after).unwrap();
    Proven::of(name, &machine.disk, &[])
}

/// `text` with every `root=` naming a filesystem that is not there.
fn without_root(text: &str) -> String {
    let missing = "root=UUID=00000000-0000-4000-8000-00000000dead";
    let word = |word: &str| if word.starts_with("root=") { missing.to_owned() } else { word.to_owned() };
    let line = |line: &str| match line.trim_start().starts_with("linux") {
        true => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
        false => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn grub_without_its_menu_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    machine.remove("/boot/grub/grub.cfg").unwrap();
    Proven::of("grub-shell", &machine.disk, &[]).failed_with("it waits at its command line");
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn grub_without_its_files_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    machine.remove("/boot/grub/i386-pc/normal.mod").unwrap();
    Proven::of("grub-rescue", &machine.disk, &[]).failed_with("GRUB started and did not find its own files");
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn an_initramfs_without_its_root_is_a_failure() {
    let proven = with_menu("initramfs-shell", Kind::A, without_root);
    proven.failed_with("its initramfs did not find the root filesystem");
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn a_dracut_without_its_root_is_a_failure() {
    // With systemd in it, it waits without limit, and says so again and again.
    let proven = with_menu("dracut-waiting", Kind::C, without_root);
    proven.failed_with("its initramfs did not find the root filesystem");
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn a_kernel_without_its_initramfs_is_a_failure() {
    let without = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("initrd"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let proven = with_menu("kernel-panic", Kind::A, without);
    proven.failed_with("the kernel could not mount its root filesystem");
}

#[test]
#[ignore = "converts and boots a machine: minutes"]
fn systemd_in_emergency_mode_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let machine = SourceMachine::make(Kind::A, folder.path()).unwrap();
    let table = machine.text("/etc/fstab").unwrap();
    let lost = "UUID=00000000-0000-4000-8000-00000000dead /srv/lost ext4 x-systemd.device-timeout=5 0 2\n";
    machine.replace("/etc/fstab", &(table + lost)).unwrap();
    Proven::of("systemd-emergency", &machine.disk, &[]).failed_with("systemd went into emergency mode");
}

/// A proof that runs until it is ended: the program, the process id of its QEMU.
fn running_proof(output: &Path, disk: &Path, temporary: &Path) -> (Child, u32) {
    fs::create_dir_all(temporary).unwrap();
    let mut child = vconverter(output, disk, &["--prove-boot", "--proof-time", "3600"])
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["message"].as_str().is_some_and(|message| message.starts_with("boot proof: started")) {
            break;
        }
    }
    let qemu = children(child.id());
    assert_eq!(qemu.len(), 1, "{qemu:?}");
    (child, qemu[0])
}

fn children(parent: u32) -> Vec<u32> {
    let line = format!("PPid:\t{parent}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|text| text.lines().any(|l| l == line))
    })
    .collect()
}

/// Waits until a process is gone, or dead and not yet buried by its new parent.
fn wait_for_death(pid: u32) {
    let start = Instant::now();
    let lives = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
    };
    while lives() {
        assert!(start.elapsed() < PATIENCE, "QEMU (process {pid}) lives on");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_killed_proof_leaves_no_machine_and_the_next_run_its_result_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, temporary) = (disk_with(folder.path(), &COUNTING), folder.path().join("tmp"));
    let (mut child, qemu) = running_proof(folder.path(), &disk, &temporary);
    signal(&child, "-KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    wait_for_death(qemu);
    println!("killed: left {:?} and {:?}", names(&folder.path().join(".vm.partial")), names(&temporary));
    let status = vconverter(folder.path(), &disk, &["--no-prove-boot"]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(names(&folder.path().join("vm")), ["conversion.json", "look.sh", "vm-disk0.qcow2", "vm.xml"]);
}

#[test]
fn an_interrupted_proof_leaves_nothing_running_and_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, temporary) = (disk_with(folder.path(), &COUNTING), folder.path().join("tmp"));
    let (mut child, qemu) = running_proof(folder.path(), &disk, &temporary);
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_for_death(qemu);
    assert_eq!(names(&temporary), [""; 0]);
    assert!(!folder.path().join(".vm.partial/proof-disk0.qcow2").exists());
    assert!(!folder.path().join("vm").exists());
}

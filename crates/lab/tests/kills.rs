//! Every step of a task is killed (SIGKILL) at its start, middle and end, and every step's failure is injected: a real controller,
//! a real agent, real disks. The program is the one that is shipped: strace holds it at a system call of its own.
//!
//! A row ends well when the task is done after going on (or after a retry, where it failed), the image is bit by bit the
//! source's disk, and nothing is left: no working folder, no temporary file, no process. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use lab::{Effect, RunningAgent, Site, SystemCall, Tampering};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(300);
const MIB: usize = 1 << 20;

/// A moment of a conversion: the `nth` of these system calls on a file of its output folder.
struct Moment {
    step: &'static str,
    point: &'static str,
    call: &'static str,
    file: &'static str,
    nth: u32,
    /// Whether it is seen where not every row is.
    always: bool,
}

const fn at(step: &'static str, point: &'static str, call: &'static str, file: &'static str, nth: u32) -> Moment {
    Moment { step, point, call, file, nth, always: false }
}

const fn always(moment: Moment) -> Moment {
    Moment { always: true, ..moment }
}

/// The record is written at the end of each step, which makes its writing the step's end: a kill there loses the step's note.
const RECORD: &str = ".vm.partial/conversion.json.new";
const IMAGE: &str = ".vm.partial/vm-disk0.qcow2";
const JOURNAL: &str = ".vm.partial/vm-disk0.qcow2.journal";

const KILLS: &[Moment] = &[
    at("check", "start", "mkdir", ".vm.partial", 1),
    at("check", "middle", "openat", ".vm.partial/lock", 1),
    always(at("check", "end", "rename", RECORD, 1)),
    at("copy", "start", "openat", IMAGE, 1),
    always(at("copy", "middle", "fdatasync", JOURNAL, 1)),
    at("copy", "end", "rename", RECORD, 2),
    at("verify", "start", "openat", IMAGE, 2),
    always(at("verify", "middle", "pread64", IMAGE, 2)),
    at("verify", "end", "rename", RECORD, 3),
    at("fix-up", "start", "openat", RECORD, 4),
    at("fix-up", "end", "rename", RECORD, 4),
    at("define", "start", "openat", ".vm.partial/vm.xml", 1),
    always(at("define", "middle", "openat", ".vm.partial/look.sh", 1)),
    at("define", "end", "rename", RECORD, 5),
    at("prove", "start", "mkdir", ".vm.partial/proof", 1),
    always(at("prove", "middle", "openat", ".vm.partial/proof/screen.png", 1)),
    at("prove", "end", "rename", RECORD, 6),
    at("clean up", "start", "rename", RECORD, 7),
    at("clean up", "middle", "rename", RECORD, 8),
    at("clean up", "end", "renameat2", ".vm.partial", 1),
    always(at("clean up", "behind its end", "unlink", "vm/lock", 1)),
];

/// Where a step fails, by which error, and what the task says then.
const FAILURES: &[(Moment, &str, &[&str])] = &[
    (at("check", "its folder", "mkdir", ".vm.partial", 1), "EROFS", &["output folder", "Read-only file system"]),
    (at("check", "its record", "rename", RECORD, 1), "ENOSPC", &["record", "No space left"]),
    (at("copy", "the image", "openat", IMAGE, 1), "EACCES", &[IMAGE, "cannot be written", "Permission denied"]),
    (always(at("copy", "room", "fdatasync", IMAGE, 1)), "ENOSPC", &[IMAGE, "no space left", "make room"]),
    (at("copy", "the journal", "fdatasync", JOURNAL, 1), "EIO", &["vm-disk0.qcow2", "Input/output error"]),
    (at("verify", "the image", "openat", IMAGE, 2), "EIO", &[IMAGE, "cannot be read", "Input/output error"]),
    (always(at("verify", "a sector", "pread64", IMAGE, 2)), "EIO", &["vm-disk0.qcow2", "Input/output error"]),
    (at("fix-up", "its record", "rename", RECORD, 4), "ENOSPC", &["record", "No space left"]),
    (at("define", "the definition", "openat", ".vm.partial/vm.xml", 1), "ENOSPC", &["vm.xml", "No space left"]),
    (at("prove", "its folder", "mkdir", ".vm.partial/proof", 1), "EACCES", &["proof", "Permission denied"]),
    (
        at("prove", "its overlay", "openat", ".vm.partial/proof-disk0.qcow2", 3),
        "EROFS",
        &["qemu-img create failed", "Read-only file system"],
    ),
    (
        always(at("prove", "its words", "openat", ".vm.partial/proof/proof.json", 1)),
        "ENOSPC",
        &["proof", "No space left"],
    ),
    (at("prove", "joining", "rename", RECORD, 8), "EIO", &["record", "Input/output error"]),
    (at("prove", "the name", "renameat2", ".vm.partial", 1), "EIO", &["vms/vm", "Input/output error"]),
];

fn every_row() -> bool {
    std::env::var("VCONVERTER_ROWS").is_ok_and(|rows| !rows.is_empty())
}

struct Yard {
    folder: tempfile::TempDir,
    site: Site,
    disk: PathBuf,
    machine: String,
    /// What the controller keeps when nothing is under way.
    kept: Vec<String>,
    _agent: RunningAgent,
}

impl Yard {
    fn new(make_disk: impl FnOnce(&Path), hostname: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // QEMU, which is nobody, finds its scratch folder below.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let disk = folder.path().join("disk.raw");
        make_disk(&disk);
        let site = Site::with_temporary_folder(folder.path()).unwrap();
        let facts = folder.path().join("facts.json");
        let guest = machine::Guest { hostname: Some(hostname.into()), ..machine::Guest::default() };
        fs::write(&facts, serde_json::to_string(&guest).unwrap()).unwrap();
        let arguments = ["--guest-facts", facts.to_str().unwrap()];
        let agent = site.start_agent_with(&disk, &folder.path().join("agent"), &arguments).unwrap();
        let machine = site.pair_agent(&agent).unwrap();
        let kept = names(&folder.path().join("data"));
        Self { folder, site, disk, machine, kept, _agent: agent }
    }

    fn output(&self) -> PathBuf {
        self.site.output()
    }

    fn convert(&self, options: &[&str]) -> String {
        // After a controller's start its agent comes back by itself.
        self.site.ready_machine(PATIENCE).unwrap();
        let output = self.output().display().to_string();
        let arguments = ["convert", &self.machine, "--name", "vm", "--output", &output, "--detach"];
        let task = self.site.json(&[&arguments, options].concat()).unwrap();
        task["id"].as_str().unwrap().to_owned()
    }

    fn tamper(&self, moment: &Moment, effect: Effect) -> Tampering {
        let call = SystemCall { name: moment.call, path: self.output().join(moment.file), nth: moment.nth };
        let log = self.folder.path().join("strace.log");
        Tampering::begin(self.site.controller_process().unwrap(), &call, effect, &log).unwrap()
    }

    /// Until something is so.
    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "never: {what}: {}", self.site.json(&["tasks"]).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the controller, or sees that it is dead, and looks for what it left running.
    fn controller_is_dead(&mut self) {
        self.site.kill_controller();
        self.wait("nothing runs on", || self.processes("qemu").is_empty());
    }

    /// What runs with this in its command line, and with a file of ours.
    fn processes(&self, text: &str) -> Vec<(u32, String)> {
        let ours = self.folder.path().to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let found = entries.filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line.contains(text) && line.contains(ours) && !line.starts_with("strace")).then_some((process, line))
        });
        found.collect()
    }

    fn is_dead(&self, process: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// Sees the task done and its result whole, with nothing beside it, and takes the result away.
    fn done(&self, task: &str) -> Value {
        let ended = self.site.wait_for_task(task, PATIENCE).unwrap();
        assert_eq!(ended["state"], "done", "{ended}");
        let open: Vec<_> = ended["steps"].as_array().unwrap().iter().filter(|step| step["state"] != "done").collect();
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(names(&self.output()), ["vm"], "beside the result");
        let result = self.output().join("vm");
        let tool = |arguments: &[&str]| {
            let output = Command::new("qemu-img").args(arguments).arg(result.join("vm-disk0.qcow2")).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        tool(&["check", "-q", "-f", "qcow2"]);
        let mut left = names(&result);
        left.retain(|name| {
            !["conversion.json", "look.sh", "proof", "vm-disk0.qcow2", "vm.xml"].contains(&name.as_str())
        });
        assert!(
            ended["outcome"]["fixups"].as_array().unwrap().iter().any(|fixup| fixup["result"] == "made") || {
                // Without a fix-up, it is the disk itself.
                tool(&["compare", "-q", "-f", "raw", "-F", "qcow2", self.disk.to_str().unwrap()]);
                true
            }
        );
        left.retain(|name| name != "appliance.log");
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(names(&self.folder.path().join("data")), self.kept);
        assert_eq!(self.processes("qemu"), []);
        fs::remove_dir_all(result).unwrap();
        ended
    }

    /// What killed programs left of their temporary files goes when the next VM starts, a minute later. That it is later
    /// is made so.
    fn nothing_temporary_is_left(&self, prove: &[&str]) {
        let temporary = self.folder.path().join("tmp");
        let then = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(120));
        println!("temporary, of killed programs: {:?}", names(&temporary));
        for name in names(&temporary) {
            File::open(temporary.join(name)).unwrap().set_times(then).unwrap();
        }
        self.done(&self.convert(prove));
        assert_eq!(names(&temporary), Vec::<String>::new());
    }
}

/// Sorted; the database's own files come and go.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect();
    names.sort();
    names
}

/// 8 MiB of noise, and a boot sector that writes a login prompt: the smallest machine that a boot proof passes.
fn make_prompt(disk: &Path) {
    // mov ah,0eh; xor bx,bx; mov si,text; next: lodsb; test al,al; jz stop; int 10h; jmp next; stop: hlt; jmp stop
    let code = b"\xb4\x0e\x31\xdb\xbe\x20\x7c\xac\x84\xc0\x74\x04\xcd\x10\xeb\xf7\xf4\xeb\xfd";
    let text = b"\r\nDebian GNU/Linux 12 phys-k tty1\r\n\r\nphys-k login: \0";
    // Active, of a type that nothing knows, sectors 2048 to 16384.
    let partition = [0x80, 0, 0, 0, 0xda, 0, 0, 0, 0, 8, 0, 0, 0, 0x38, 0, 0];
    let mut bytes = vec![0; 8 * MIB];
    bytes[..code.len()].copy_from_slice(code);
    bytes[0x20..0x20 + text.len()].copy_from_slice(text);
    bytes[446..462].copy_from_slice(&partition);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    File::open("/dev/urandom").unwrap().read_exact_at(&mut bytes[MIB..], 0).unwrap();
    fs::write(disk, bytes).unwrap();
}

const PROVEN: &[&str] = &["--verify", "--prove-boot"];

#[test]
fn a_task_that_is_killed_in_any_step_is_done_by_the_next_controller() {
    let mut yard = Yard::new(make_prompt, "phys-k");
    for moment in KILLS.iter().filter(|moment| moment.always || every_row()) {
        let begun = Instant::now();
        let controller = yard.site.controller_process().unwrap();
        let tampering = yard.tamper(moment, Effect::Kill);
        let task = yard.convert(PROVEN);
        yard.wait("it is killed", || yard.is_dead(controller));
        drop(tampering);
        yard.controller_is_dead();
        yard.site.start_controller().unwrap();
        let done = yard.done(&task);
        assert_eq!(
            (&done["outcome"]["verified"], &done["outcome"]["proof"]["verdict"]),
            (&true.into(), &"passed".into())
        );
        let seconds = begun.elapsed().as_secs_f64();
        println!("{}, {}: killed at {} {}, done, {seconds:.1} s", moment.step, moment.point, moment.call, moment.file);
    }
    yard.nothing_temporary_is_left(PROVEN);
}

#[test]
fn a_step_that_fails_says_what_to_do_and_is_done_when_it_is_tried_again() {
    let yard = Yard::new(make_prompt, "phys-k");
    for (moment, error, says) in FAILURES.iter().filter(|(moment, ..)| moment.always || every_row()) {
        let tampering = yard.tamper(moment, Effect::Fail(error));
        let task = yard.convert(PROVEN);
        let failed = yard.site.wait_for_task(&task, PATIENCE).unwrap();
        let said = failed["error"].as_str().unwrap_or_default();
        println!("{}, {}: {said}", moment.step, moment.point);
        assert_eq!(failed["state"], "failed", "{failed}");
        assert!(tampering.is_done());
        assert!(says.iter().all(|text| said.contains(text)), "{said}: expected {says:?}");
        let steps = failed["steps"].as_array().unwrap();
        let state = |step: &Value| step["state"].as_str().unwrap().to_owned();
        let at = steps.iter().position(|step| step["step"] == moment.step).unwrap();
        assert_eq!(state(&steps[at]), "failed", "{steps:?}");
        assert!(steps[..at].iter().all(|step| state(step) == "done"), "{steps:?}");
        assert!(steps[at + 1..].iter().all(|step| state(step) == "pending"), "{steps:?}");
        assert!(!yard.output().join("vm").exists());
        drop(tampering);
        yard.site.json(&["tasks", "retry", &task]).unwrap();
        yard.done(&task);
    }
    yard.nothing_temporary_is_left(PROVEN);
}

/// A root filesystem that the appliance looks into.
fn make_guest(disk: &Path) {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; mkdir -p $d/t/etc/network $d/t/etc/default $d/t/boot/grub
        printf 'PRETTY_NAME=\"Debian GNU/Linux 12\"\\nID=debian\\nVERSION_ID=\"12\"\\n' > $d/t/etc/os-release
        echo phys-g > $d/t/etc/hostname; echo 'GRUB_CMDLINE_LINUX=\"root=/dev/sda1\"' > $d/t/etc/default/grub
        echo 'UUID=11111111-1111-4111-8111-111111111111 / ext4 defaults 0 1' > $d/t/etc/fstab
        PATH=$PATH:/sbin:/usr/sbin
        mke2fs -qF -t ext4 -U 11111111-1111-4111-8111-111111111111 -d $d/t $d/r 14M
        truncate -s 16M $1; printf 'label: dos\\nstart=2048,type=83\\n' | sfdisk -q $1
        dd if=$d/r of=$1 bs=1M seek=1 conv=notrunc status=none; sync $1";
    let made = Command::new("sh").args(["-ec", script, "sh"]).arg(disk).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
#[ignore = "starts the appliance eight times: minutes"]
fn fix_ups_that_are_killed_or_fail_are_made_by_the_next_try() {
    const FIXED: &[&str] = &["--no-prove-boot"];
    let mut yard = Yard::new(make_guest, "phys-g");
    // The first builds the appliance.
    yard.done(&yard.convert(FIXED));

    // strace begins when the appliance has spoken: its VM runs by itself, at its own speed.
    let log = |yard: &Yard, task: &str| yard.site.vconverter(&["tasks", "log", task]).unwrap().1;
    let speaks = |yard: &Yard, task: &str| {
        yard.wait("the appliance speaks", || log(yard, task).contains("appliance: root filesystem"));
    };

    // At its start qemu-img makes the overlay. That it is killed is a failure of the step, and no more.
    let overlay = at("fix-up", "start", "openat", ".vm.partial/fixups-disk0.qcow2", 1);
    let tampering = yard.tamper(&overlay, Effect::Kill);
    let task = yard.convert(FIXED);
    let failed = yard.site.wait_for_task(&task, PATIENCE).unwrap();
    println!("fix-up, start, qemu-img killed: {}", failed["error"]);
    assert!(failed["state"] == "failed" && failed["error"].as_str().unwrap().contains("qemu-img create"), "{failed}");
    drop(tampering);
    yard.site.json(&["tasks", "retry", &task]).unwrap();
    yard.done(&task);

    // At its end everything is made and nothing is noted.
    let controller = yard.site.controller_process().unwrap();
    let task = yard.convert(FIXED);
    speaks(&yard, &task);
    let tampering = yard.tamper(&at("fix-up", "end", "rename", RECORD, 1), Effect::Kill);
    yard.wait("it is killed", || yard.is_dead(controller));
    drop(tampering);
    yard.controller_is_dead();
    yard.site.start_controller().unwrap();
    yard.done(&task);
    println!("fix-up, end: killed; done");

    // In the midst of it: the appliance has spoken.
    let task = yard.convert(FIXED);
    speaks(&yard, &task);
    let running = yard.processes("qemu-system").len();
    yard.controller_is_dead();
    yard.site.start_controller().unwrap();
    yard.done(&task);
    println!("fix-up, middle: killed beside {running} VM; done");

    // The appliance's own VM dies.
    let task = yard.convert(FIXED);
    speaks(&yard, &task);
    for (process, _) in yard.processes("qemu-system") {
        let process = Pid::from_raw(process.cast_signed()).unwrap();
        kill_process(process, Signal::KILL).unwrap();
    }
    let failed = yard.site.wait_for_task(&task, PATIENCE).unwrap();
    println!("fix-up, its VM killed: {}", failed["error"]);
    assert!(
        failed["state"] == "failed" && failed["error"].as_str().unwrap().contains("the appliance ended"),
        "{failed}"
    );
    yard.site.json(&["tasks", "retry", &task]).unwrap();
    yard.done(&task);

    // The overlay joins its disk: that fails, and then the controller is killed in the midst of it.
    let join = at("prove", "joining", "pwrite64", IMAGE, 1);
    let task = yard.convert(FIXED);
    speaks(&yard, &task);
    let tampering = yard.tamper(&join, Effect::Fail("ENOSPC"));
    let failed = yard.site.wait_for_task(&task, PATIENCE).unwrap();
    println!("joining, no room: {}", failed["error"]);
    assert!(failed["state"] == "failed" && failed["error"].as_str().unwrap().contains("qemu-img commit"), "{failed}");
    drop(tampering);
    yard.site.json(&["tasks", "retry", &task]).unwrap();
    yard.done(&task);

    let task = yard.convert(FIXED);
    speaks(&yard, &task);
    let tampering = yard.tamper(&join, Effect::Delay(60));
    // strace tells of a delay when it is over. That qemu-img is seen at all is the delay's doing.
    yard.wait("qemu-img joins", || !yard.processes("commit").is_empty());
    std::thread::sleep(Duration::from_secs(1));
    yard.controller_is_dead();
    drop(tampering);
    yard.site.start_controller().unwrap();
    yard.done(&task);
    println!("joining, middle: killed, and qemu-img with it; done");
    yard.nothing_temporary_is_left(FIXED);
}

//! The real program installs itself, runs once and goes, in namespaces of its own: full and read-only filesystems included.
//! Needs root, or a system where users may make namespaces.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_vconverter-agent");
/// Nobody listens there.
const CONTROLLER: &str = "127.0.0.1:9";
/// One that is good nowhere.
const TOKEN: &str =
    "vce_0707070707070707070707070707070707070707070707070707070707070707_00112233445566778899aabbccddeeff";

/// A shell with its own mounts and processes, in which `/run` and `/dev/shm` are empty and `$A` is the agent.
fn shell(script: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"]);
    command.arg(format!("mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm\n{script}"));
    command.env("A", AGENT).env("D", folder).env("TOKEN", TOKEN).env("C", CONTROLLER);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(script: &str, folder: &Path) -> (bool, String) {
    let Output { status, stdout, stderr } = shell(script, folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("{status}: {said}");
    (status.success(), said)
}

/// A system below `$D/root` that has systemd, and the sum of all that is in it.
const SYSTEM: &str = r#"
mkdir -p $D/root/usr/lib/systemd $D/root/usr/local/sbin $D/root/var/lib $D/root/etc/systemd/system
: > $D/root/usr/lib/systemd/systemd
sum() { (cd $D/root; find . | sort; find . -type f | sort | xargs -r cat; find . -type l | sort | xargs -r -n1 readlink) | sha256sum; }
install() { echo "$TOKEN" | $A install --controller $C --enrol - --root $D/root "$@"; }
"#;

#[test]
fn a_full_or_read_only_filesystem_is_named_and_left_as_it_was() {
    let cases = [
        // A filesystem that has not even room for the configuration, or only not for the program.
        ("var/lib", "size=8k", "no space is left on the filesystem of .*/var/lib/vconverter-agent"),
        ("usr/local/sbin", "size=256k", "no space is left on the filesystem of .*/usr/local/sbin"),
        ("etc/systemd/system", "nr_inodes=1", "no space is left on the filesystem of .*/etc/systemd/system"),
        ("var/lib", "ro", "the filesystem of .*/var/lib is read-only"),
        ("etc/systemd/system", "ro", "the filesystem of .*/etc/systemd/system is read-only"),
    ];
    for (place, option, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "{SYSTEM}\nmount -t tmpfs -o {option} tmpfs $D/root/{place}\n[ {option} != size=8k ] || dd if=/dev/zero of=$D/root/{place}/full bs=1k count=8 2>/dev/null || :\n\
             before=$(sum); if install; then exit 7; fi; [ \"$before\" = \"$(sum)\" ]; echo SAME"
        );
        let (ended_well, said) = run(&script, folder.path());
        let one_line = said.lines().find(|line| line.starts_with("vconverter-agent: ")).unwrap_or_default();
        let (begin, end) = expected.split_once(".*").unwrap();
        assert!(ended_well && said.contains("SAME"), "{place} {option}: {said}");
        assert!(one_line.contains(begin) && one_line.contains(end), "{place} {option}: {one_line}");
        assert!(one_line.ends_with("everything was undone"), "{one_line}");
    }
}

#[test]
fn where_usr_is_read_only_the_program_is_elsewhere_and_all_of_it_goes_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "{SYSTEM}\nbefore=$(sum); mount --bind $D/root/usr $D/root/usr; mount -o remount,bind,ro $D/root/usr\n\
         install >/dev/null; cmp $A $D/root/opt/vconverter/vconverter-agent; $A status --root $D/root\n\
         $A remove --root $D/root; [ \"$before\" = \"$(sum)\" ]; echo SAME; $A remove --root $D/root"
    );
    let (ended_well, said) = run(&script, folder.path());
    assert!(ended_well && said.contains("\"program\": \"/opt/vconverter/vconverter-agent\""), "{said}");
    assert!(said.contains("SAME\nnothing of the agent is here\n"), "{said}");
}

#[test]
fn an_agent_that_runs_once_is_found_and_ended_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let script = "cp $A $D/copy; echo $TOKEN | $D/copy install --once --controller $C --enrol -; rm $D/copy\n\
                  ls -l /run/vconverter-agent; $A status; ps ax -o args | grep -c '^vconverter-agent --config'\n\
                  [ -z \"$(ps ax -o args | grep vce_ | grep -v grep)\" ]\n\
                  $A remove; if ps ax -o args | grep '^vconverter-agent --config'; then exit 7; fi\n\
                  [ -z \"$(ls -A /run /dev/shm | grep vconv)\" ]; $A status | grep '\"running\": false'";
    let (ended_well, said) = run(script, folder.path());
    assert!(ended_well, "{said}");
    assert!(said.contains("\"once\": true") && said.contains("\"controller\": \"127.0.0.1:9\""), "{said}");
    assert!(said.contains("no controller listens there"), "what it did last: {said}");
}

/// A once-run that awaits the word; its lines up to the first of the agent's.
fn awaiting(folder: &Path, seconds: &str) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let script = format!(
        "$A install --once --json --controller $C --enrol - --keep-within {seconds} || echo FAILED\n\
         ls -A /run /dev/shm; ps ax -o args | grep '^vconverter-agent --config' || echo NONE"
    );
    let mut child = shell(&script, folder).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(format!("{TOKEN}\n").as_bytes()).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("\"event\":\"agent\"") {
        assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
    }
    (child, output, said)
}

fn rest(mut child: Child, mut output: BufReader<std::process::ChildStdout>) -> String {
    drop(child.stdin.take());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut output, &mut said).unwrap();
    child.wait().unwrap();
    println!("{said}");
    said
}

#[test]
fn a_connection_that_ends_before_the_word_undoes_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (child, output, said) = awaiting(folder.path(), "60");
    assert!(!said.contains("vce_"), "{said}");
    let said = rest(child, output);
    assert!(said.contains("given up before it was kept; everything was undone"), "{said}");
    assert!(said.contains("FAILED") && said.contains("NONE") && !said.contains("\nvconverter"), "{said}");
}

#[test]
fn nobody_who_says_the_word_in_time_undoes_everything_and_the_word_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut output, _) = awaiting(folder.path(), "1");
    let stdin = child.stdin.take();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut output, &mut said).unwrap();
    drop(stdin);
    child.wait().unwrap();
    assert!(said.contains("within 1 s that the installation stays") && said.contains("NONE"), "{said}");

    let (mut child, output, _) = awaiting(folder.path(), "60");
    child.stdin.as_mut().unwrap().write_all(b"keep\n").unwrap();
    let said = rest(child, output);
    assert!(said.contains("\"done\":\"running\"") && said.contains("\nvconverter-agent --config /run/"), "{said}");
}

#[test]
fn a_program_tells_its_length_and_hash() {
    let output = Command::new(AGENT).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let length = std::fs::metadata(AGENT).unwrap().len();
    assert!(said.starts_with("vconverter-agent ") && said.contains(&format!("\n{length} bytes, blake3 ")), "{said}");
}

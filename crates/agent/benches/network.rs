//! The network path against its peer: NBD through an ssh tunnel, as virt-p2v does it.
//!
//! `cargo bench -p agent --bench network` (as root: it makes a loop device and starts an sshd of its own on loopback). A
//! GPT disk of 1 GiB with one ext4 partition, half full with files of this system, is pulled into a qcow2 image by turns
//! through our agent and receiver, and through `qemu-nbd`, ssh and `qemu-img convert`. CPU is that of all processes on
//! both ends, from their start to their end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use block::Format;
use block::journal::ImageIdentity;
use conversion::Cancel;
use conversion::receive::{ReceiveOptions, receive_disk};
use conversion::replica::Replica;
use machine::ByteCount;
use protocol::message::{Compress, OnUnreadable, StreamMode};
use support::{Agent, Controller};

const ROUNDS: usize = 3;
const DISK_MIB: u64 = 1024;
const FILES_MIB: u64 = 480;
const GATE: f64 = 0.3;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("network bench: skipped, run it by `cargo bench -p agent --bench network`");
        return;
    }
    let folder = tempfile::Builder::new().prefix("vconverter-bench").tempdir_in(scratch()).unwrap();
    let disk = Loop::make(folder.path());
    let (mut ours, mut default_cipher, mut aes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(run_ours(&disk, folder.path()));
        default_cipher.push(run_peer(&disk, folder.path(), None));
        aes.push(run_peer(&disk, folder.path(), Some("aes128-gcm@openssh.com")));
    }
    println!(
        "\n| way | CPU-s | wall s | agent peak MiB | receiver peak above idle MiB |\n| --- | --- | --- | --- | --- |"
    );
    let best = median(&ours);
    println!("| ours | {:.2} | {:.2} | {} | {} |", best.cpu, best.wall, best.agent_mib, best.receiver_mib);
    for (name, runs) in [("NBD over ssh, default cipher", &default_cipher), ("NBD over ssh, aes128-gcm", &aes)] {
        let peer = median(runs);
        let (cpu, wall) = (best.cpu / peer.cpu, best.wall / peer.wall);
        println!("| {name} | {:.2} (ours is {cpu:.3} of it) | {:.2} ({wall:.3}) | | |", peer.cpu, peer.wall);
        assert!(cpu <= GATE, "the gate is {GATE} of the peer's CPU");
    }
}

fn scratch() -> PathBuf {
    std::env::var_os("VCONVERTER_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

#[derive(Clone, Debug, Default)]
struct Run {
    cpu: f64,
    wall: f64,
    agent_mib: u64,
    receiver_mib: u64,
}

fn median(runs: &[Run]) -> Run {
    let mut runs = runs.to_vec();
    runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let mut middle = runs[runs.len() / 2].clone();
    let mut walls: Vec<f64> = runs.iter().map(|run| run.wall).collect();
    walls.sort_by(f64::total_cmp);
    middle.wall = walls[walls.len() / 2];
    middle.agent_mib = runs.iter().map(|run| run.agent_mib).max().unwrap_or(0);
    middle.receiver_mib = runs.iter().map(|run| run.receiver_mib).max().unwrap_or(0);
    middle
}

fn run_ours(disk: &Loop, folder: &Path) -> Run {
    let idle = memory(std::process::id(), "VmRSS");
    let (children, own) = (children_cpu(), own_cpu());
    let controller = Controller::start();
    let agent =
        Agent::start(controller.address(), Some(controller.authority()), &folder.join("state"), &[&disk.device]);
    controller.approve();
    let replica = Replica {
        path: folder.join("ours.qcow2"),
        journal: folder.join("ours.journal"),
        identity: ImageIdentity { disk: "bench".into(), size: ByteCount::mib(DISK_MIB), format: Format::Qcow2 },
    };
    let mode = |resume| StreamMode::Data { resume, compress: Compress::WhenItPays, on_unreadable: OnUnreadable::Stop };
    let mut supply = controller.supply(0, mode, Cancel::default());
    let mut peak = 0;
    let mut watch = |_: &_| peak = peak.max(memory(std::process::id(), "VmRSS"));
    let began = Instant::now();
    let stats =
        receive_disk(&mut supply, &replica, &ReceiveOptions::default(), &mut watch, &Cancel::default()).unwrap();
    let wall = began.elapsed().as_secs_f64();
    let agent_mib = memory(agent.id(), "VmHWM") >> 10;
    agent.kill();
    let cpu = (own_cpu() - own) + (children_cpu() - children);
    eprintln!("ours: {cpu:.2} CPU-s, {wall:.2} s, {} used, {} sent, agent {agent_mib} MiB", stats.done, stats.sent);
    compare(disk, &replica.path);
    std::fs::remove_file(&replica.path).unwrap();
    std::fs::remove_file(&replica.journal).unwrap();
    Run { cpu, wall, agent_mib, receiver_mib: peak.saturating_sub(idle) >> 10 }
}

fn run_peer(disk: &Loop, folder: &Path, cipher: Option<&str>) -> Run {
    let before = children_cpu();
    let (nbd_port, ssh_port, pulled_port) = (free_port(), free_port(), free_port());
    let keys = folder.join("keys");
    if !keys.exists() {
        std::fs::create_dir(&keys).unwrap();
        for name in ["host", "user"] {
            command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", keys.join(name).to_str().unwrap()]);
        }
        std::fs::copy(keys.join("user.pub"), keys.join("authorized")).unwrap();
    }
    let _ = std::fs::create_dir_all("/run/sshd");
    let config = format!(
        "ListenAddress 127.0.0.1:{ssh_port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n",
        keys.display()
    );
    let config_path = keys.join("sshd_config");
    std::fs::write(&config_path, config).unwrap();
    let quiet = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-f"]).arg(&config_path);
    let sshd = Killed(quiet(sshd), "-TERM");
    let mut nbd = Command::new("qemu-nbd");
    nbd.args(["-r", "-f", "raw", "--cache=none", "--aio=native", "-t", "-b", "127.0.0.1", "-p", &nbd_port.to_string()]);
    nbd.arg(&disk.device);
    let nbd = Killed(quiet(nbd), "-TERM");
    await_port(ssh_port);
    await_port(nbd_port);
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-N",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ExitOnForwardFailure=yes",
    ]);
    if let Some(cipher) = cipher {
        ssh.args(["-c", cipher]);
    }
    ssh.arg("-i").arg(keys.join("user")).args(["-p", &ssh_port.to_string(), "-R"]);
    ssh.arg(format!("127.0.0.1:{pulled_port}:127.0.0.1:{nbd_port}")).arg("root@127.0.0.1");
    let ssh = Killed(quiet(ssh), "-TERM");
    await_port(pulled_port);
    let output = folder.join("peer.qcow2");
    let began = Instant::now();
    let source = format!("nbd://127.0.0.1:{pulled_port}");
    command("qemu-img", &["convert", "-t", "none", "-W", "-m", "16", "-O", "qcow2", &source, output.to_str().unwrap()]);
    let wall = began.elapsed().as_secs_f64();
    drop(ssh);
    // The session's processes are reaped by sshd, and counted with it.
    sleep(Duration::from_millis(500));
    drop(sshd);
    drop(nbd);
    let cpu = children_cpu() - before;
    eprintln!("peer ({}): {cpu:.2} CPU-s, {wall:.2} s", cipher.unwrap_or("default cipher"));
    std::fs::remove_file(&output).unwrap();
    Run { cpu, wall, ..Run::default() }
}

/// A child that is ended by a signal and waited for.
struct Killed(Child, &'static str);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = Command::new("kill").args([self.1, &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// The source's disk.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn make(folder: &Path) -> Self {
        let (image, files, part) = (folder.join("disk.raw"), folder.join("files"), folder.join("part.raw"));
        gather_files(&files);
        let part_mib = DISK_MIB - 2;
        let file = std::fs::File::create(&part).unwrap();
        file.set_len(part_mib << 20).unwrap();
        command("mkfs.ext4", &["-q", "-F", "-d", files.to_str().unwrap(), part.to_str().unwrap()]);
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(DISK_MIB << 20).unwrap();
        let table = format!("label: gpt\nstart=2048, size={}\n", part_mib << 11);
        let mut sfdisk = Command::new("sfdisk").arg("-q").arg(&image).stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        let copied = ["if=".to_owned() + part.to_str().unwrap(), "of=".to_owned() + image.to_str().unwrap()];
        command("dd", &[&copied[0], &copied[1], "bs=1M", "seek=1", "conv=notrunc,fsync", "status=none"]);
        std::fs::remove_file(&part).unwrap();
        std::fs::remove_dir_all(&files).unwrap();
        let output =
            Command::new("losetup").args(["-r", "-f", "--show", "--direct-io=on"]).arg(&image).output().unwrap();
        assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        Self { device: PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()) }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// Half a disk of this system's own libraries and programs.
fn gather_files(into: &Path) {
    std::fs::create_dir(into).unwrap();
    let mut left = FILES_MIB << 20;
    let mut folders = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && metadata.len() <= left {
                left -= metadata.len();
                std::fs::copy(&path, into.join(format!("{left}"))).unwrap();
            }
        }
    }
}

/// Free blocks are zeros on this disk, so the whole of both must be equal.
fn compare(disk: &Loop, image: &Path) {
    command(
        "qemu-img",
        &["compare", "-q", "-f", "raw", "-F", "qcow2", disk.device.to_str().unwrap(), image.to_str().unwrap()],
    );
    command("qemu-img", &["check", "-q", "-f", "qcow2", image.to_str().unwrap()]);
}

fn command(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn await_port(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port}");
        sleep(Duration::from_millis(50));
    }
}

/// CPU-seconds of this process.
fn own_cpu() -> f64 {
    cpu_of(&std::fs::read_to_string("/proc/self/stat").unwrap(), 14)
}

/// CPU-seconds of all children that were waited for, with theirs.
fn children_cpu() -> f64 {
    cpu_of(&std::fs::read_to_string("/proc/self/stat").unwrap(), 16)
}

/// Fields `first` (user) and the next (system) of `/proc/PID/stat`, counted from 1, in ticks of 10 ms.
fn cpu_of(stat: &str, first: usize) -> f64 {
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(first) + ticks(first + 1)) / 100.0
}

/// A field of `/proc/PID/status` in KiB.
fn memory(process: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

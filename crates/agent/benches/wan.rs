//! A disk over a bad line, 20 Mbit/s, 80 ms and 1 % loss, against what iperf3 reaches on the same line in the same run.
//!
//! `cargo bench -p agent --bench wan` (as root: it makes a network namespace and a line to it with `tools/impaired-link`). By
//! turns, each for half a minute: iperf3, then our agent that sends noise. What counts are bytes that crossed the line within
//! TCP a second, headers of our frames included and those of TLS not.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use block::Format;
use block::journal::ImageIdentity;
use conversion::Cancel;
use conversion::receive::{ReceiveOptions, receive_disk};
use conversion::replica::Replica;
use machine::ByteCount;
use protocol::message::{Compress, OnUnreadable, StreamMode};
use support::{Agent, Controller};

const ROUNDS: usize = 4;
const SECONDS: u64 = 30;
/// TCP's slow start, which iperf3 leaves out too (`-O`).
const WARM_UP: Duration = Duration::from_secs(3);
const GATE: f64 = 0.9;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("wan bench: skipped, run it by `cargo bench -p agent --bench wan`");
        return;
    }
    let folder = tempfile::Builder::new().prefix("vconverter-wan").tempdir().unwrap();
    let disk = folder.path().join("noise");
    let mut noise = std::fs::File::create(&disk).unwrap();
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), 256 << 20);
    std::io::copy(&mut random, &mut noise).unwrap();
    let line = Line::lay();
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        peer.push(iperf3(&line));
        ours.push(stream(&line, &disk, &folder.path().join(round.to_string())));
        println!("round {round}: iperf3 {:.2} Mbit/s, stream {:.2} Mbit/s", peer[round], ours[round]);
    }
    let mean = |runs: &[f64]| runs.iter().sum::<f64>() / runs.len() as f64;
    let share = mean(&ours) / mean(&peer);
    println!("mean: iperf3 {:.2} Mbit/s, stream {:.2} Mbit/s: {share:.3} of it", mean(&peer), mean(&ours));
    assert!(share >= GATE, "the gate is {GATE} of iperf3");
}

/// The line, and the namespace at its other end; both go with it.
struct Line {
    netns: String,
    link: Child,
}

impl Line {
    fn lay() -> Self {
        let netns = format!("vcwan-{}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &netns]).status().unwrap().success());
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/impaired-link"));
        let mut link = command.arg(&netns).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(link.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self { netns, link }
    }

    /// A command at the far end.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, program]);
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.link.kill();
        let _ = self.link.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// Mbit/s that arrive.
fn iperf3(line: &Line) -> f64 {
    let mut server = Command::new("iperf3");
    server.args(["-s", "-1", "-B", HERE, "-J"]).stdout(Stdio::null());
    let mut server = server.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let mut client = line.command("iperf3");
    client.args(["-c", HERE, "-J", "-O", &WARM_UP.as_secs().to_string(), "-t", &SECONDS.to_string()]);
    let output = client.output().unwrap();
    server.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // end.sum_received.bits_per_second
    let received = &text[text.find("\"sum_received\"").unwrap_or_else(|| panic!("{text}"))..];
    let rate = received.split("\"bits_per_second\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    rate.trim().parse::<f64>().unwrap() / 1e6
}

/// Our end of the line.
const HERE: &str = "10.255.77.1";

/// Mbit/s of frames.
fn stream(line: &Line, disk: &Path, folder: &Path) -> f64 {
    std::fs::create_dir(folder).unwrap();
    let controller = Controller::start_at(HERE.parse().unwrap());
    let program = line.command(env!("CARGO_BIN_EXE_vconverter-agent"));
    let pin = Some(controller.authority());
    let agent = Agent::start_as(program, controller.address(), pin, &folder.join("state"), &[disk]);
    controller.approve();
    let size = ByteCount(disk.metadata().unwrap().len());
    let replica = Replica {
        path: folder.join("image"),
        journal: folder.join("journal"),
        identity: ImageIdentity { disk: "noise".into(), size, format: Format::Qcow2 },
    };
    let mode = |resume| StreamMode::Data { resume, compress: Compress::WhenItPays, on_unreadable: OnUnreadable::Stop };
    let cancel = Cancel::default();
    let mut supply = controller.supply(0, mode, cancel.clone());
    let (began, mut first, mut last) = (Instant::now(), None, None);
    let ended = receive_disk(
        &mut supply,
        &replica,
        &ReceiveOptions::default(),
        &mut |stats| {
            let now = Instant::now();
            if now.duration_since(began) >= WARM_UP {
                first.get_or_insert((now, stats.sent.0));
                last = Some((now, stats.sent.0));
            }
            if first.is_some_and(|(first, _)| now.duration_since(first) >= Duration::from_secs(SECONDS)) {
                cancel.cancel();
            }
        },
        &cancel,
    );
    assert_eq!(ended.unwrap_err().kind, conversion::ErrorKind::Cancelled, "the disk is longer than half a minute");
    agent.kill();
    let ((from, before), (to, after)) = (first.unwrap(), last.unwrap());
    (after - before) as f64 * 8.0 / to.duration_since(from).as_secs_f64() / 1e6
}

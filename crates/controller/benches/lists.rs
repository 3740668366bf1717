//! How long lists take with 1,000 machines and 200 tasks in the store, while 200 readers follow the stream of events, and how
//! much memory the controller has then.
//!
//! `cargo bench -p controller --bench lists`. Each machine has two disks with eight volumes and four NICs; each task steps and a
//! log. Lists are asked for over the Unix socket, a connection each, first one after the other and then by eight clients at a
//! time. Memory is that of this process, which fills the store and asks, too.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use controller::store::{NewTask, Sighting, Store};
use controller::{DataDirectory, LEASE};
use conversion::Step;
use machine::{ByteCount, ByteOffset, Disk, DiskIdentity, Guest, IpNet, Machine, Nic, Volume};
use serde_json::json;
use support::{machine, nothing, start};

const MACHINES: u32 = 1000;
const TASKS: u32 = 200;
const READERS: usize = 200;
const REQUESTS: usize = 1000;
const P99_MAX: Duration = Duration::from_millis(50);
const MEMORY_MIB_MAX: u64 = 256;
const LISTS: [&str; 6] =
    ["/machines", "/machines?limit=200", "/machines?search=web7", "/tasks", "/tasks?limit=200", "/tasks?search=web7"];

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("lists bench: skipped, run it by `cargo bench -p controller --bench lists`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    start(&data, nothing()).stop();
    fill(&Store::open(&DataDirectory::new(&data).database()).unwrap(), folder.path());
    let controller = start(&data, nothing());
    let readers: Vec<UnixStream> = (0..READERS).map(|_| request(&data, "/events")).collect();
    println!("| list | bytes | p50 ms | p99 ms | p99 ms, 8 clients |\n| --- | --- | --- | --- | --- |");
    let mut worst = Duration::ZERO;
    for list in LISTS {
        let (bytes, mut alone) = ask(&data, list, REQUESTS);
        let mut together: Vec<Duration> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&data, list, REQUESTS / 8).1)).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let (p50, p99, p99_of_8) =
            (percentile(&mut alone, 50), percentile(&mut alone, 99), percentile(&mut together, 99));
        worst = worst.max(p99);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("| {list} | {bytes} | {:.1} | {:.1} | {:.1} |", ms(p50), ms(p99), ms(p99_of_8));
    }
    let memory = peak_mib();
    println!("{READERS} readers of events; largest resident memory {memory} MiB");
    for mut reader in readers {
        let mut first = [0; 15];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK", "every reader is served");
    }
    controller.stop();
    assert!(worst <= P99_MAX, "the gate is {P99_MAX:?} at the 99th percentile");
    assert!(memory <= MEMORY_MIB_MAX, "the gate is {MEMORY_MIB_MAX} MiB");
}

fn fill(store: &Store, output: &Path) {
    let mut ids = Vec::new();
    for number in 0..MACHINES {
        let (key, report) = (format!("{number:064x}"), server(number));
        store.approve_key(&key, "PowerEdge R640", "uid 0").unwrap();
        let sighting =
            Sighting { key: &key, report: &report, booted: "boot-image", agent_version: "0.1.0", boot_medium: None };
        ids.push(store.machine_reported(&sighting).unwrap());
    }
    for number in 0..TASKS {
        let name = format!("web{number}");
        let request = json!({ "name": name, "output": output }).to_string();
        let new = NewTask {
            rcc: None,
            held: false,
            name: &name,
            machine: &ids[number as usize],
            output: output.to_str().unwrap(),
            request: &request,
            waits: false,
            plan: None,
            bytes_per_second: None,
            back_by: None,
        };
        let id = store.create_task(&new, "uid 0").unwrap();
        let steps = [Step::Check, Step::Copy, Step::FixUp, Step::Define, Step::Prove];
        let lease = store.begin_task(&id, None, &steps, LEASE).unwrap().unwrap();
        for step in steps {
            store.step_begins(&lease, step).unwrap();
        }
        store.end_task(&lease, &controller::store::End::Failed("boot proof failed: kernel panic")).unwrap();
    }
}

/// A server with two disks of eight volumes, and four NICs.
fn server(number: u32) -> Machine {
    let volume = |index: u32| Volume {
        offset: ByteOffset(u64::from(index) << 33),
        size: ByteCount::gib(8),
        number: Some(index + 1),
        partition_type: Some("0fc63daf-8483-4772-8e79-3d69d8477de4".into()),
        partition_uuid: Some(format!("{number:08x}-0000-4000-8000-{index:012x}")),
        kind: "ext4".into(),
        label: Some(format!("volume-{index}")),
        uuid: Some(format!("{number:08x}-1111-4000-8000-{index:012x}")),
        used_bytes: ByteCount::gib(3),
        parts: Vec::new(),
        mount_points: vec![format!("/srv/{index}")],
        conditions: Vec::new(),
        volume_group: None,
    };
    let base = machine(&format!("SN{number:06}"));
    let disk = |place: u32| {
        let mut disk = Disk {
            path: format!("/dev/sd{}", char::from(b'a' + u8::try_from(place).unwrap())),
            virtual_size: ByteCount::gib(64),
            identity: DiskIdentity { serial: Some(format!("D{number:06}{place}")), ..DiskIdentity::default() },
            ..base.disks[0].clone()
        };
        disk.layout.volumes = (0..8).map(volume).collect();
        disk
    };
    let (high, low) = (number >> 8, number & 255);
    let nic = |place: u8| Nic {
        name: format!("eno{place}"),
        mac: format!("02:00:00:{high:02x}:{low:02x}:{place:02x}").parse().unwrap(),
        addresses: vec![IpNet { address: format!("10.{high}.{low}.{place}").parse().unwrap(), prefix_length: 24 }],
        driver: Some("tg3".into()),
        link_up: true,
    };
    let mut smbios = base.smbios.clone();
    smbios.uuid = Some(format!("{number:08x}-2222-4000-8000-000000000000"));
    let guest = Guest { hostname: Some(format!("web{number}.example.org")), ..Guest::default() };
    Machine { disks: (0..2).map(disk).collect(), nics: (0..4).map(nic).collect(), guest, smbios, ..base }
}

fn request(data: &Path, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(data.join("controller.sock")).unwrap();
    write!(stream, "GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

/// Asks so many times; the answer's length, and how long each took to its last byte.
fn ask(data: &Path, path: &str, times: usize) -> (usize, Vec<Duration>) {
    let mut answer = Vec::new();
    let took = (0..times)
        .map(|_| {
            answer.clear();
            let began = Instant::now();
            request(data, path).read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{path}: {}", String::from_utf8_lossy(&answer));
            began.elapsed()
        })
        .collect();
    (answer.len(), took)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100).saturating_sub(1)]
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

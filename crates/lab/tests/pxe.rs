//! The PXE service on a LAN with an ordinary DHCP server, asked by raw packets. Needs root.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::{CONTROLLER, Lan};
use machine::MacAddress;
use netboot::{BootFiles, Choice, Client, ErrorKind, Finding, Options, Policy, Ruling, Service};

const PATIENCE: Duration = Duration::from_secs(20);
/// A user without rights.
const NOBODY: u32 = 65534;

/// Lets every machine do the same, and remembers what was delivered.
struct Same {
    choice: Choice,
    delivered: Mutex<HashSet<MacAddress>>,
}

impl Policy for Same {
    fn rule(&self, _: &Client) -> Ruling {
        Ruling { choice: self.choice, why: "of the test".into() }
    }

    fn delivered(&self, mac: MacAddress) {
        self.delivered.lock().unwrap().insert(mac);
    }
}

fn same(choice: Choice) -> Arc<Same> {
    Arc::new(Same { choice, delivered: Mutex::default() })
}

/// 300,000 bytes that tell their place.
fn kernel() -> Vec<u8> {
    (0..75_000_u32).flat_map(u32::to_be_bytes).collect()
}

fn files() -> BootFiles {
    let mut files = BootFiles::default();
    for name in ["undionly.kpxe", "initramfs.img", "boot.efi", "vconverter.iso", "grubx64.efi", "boot.ipxe"] {
        files.insert(name, name.as_bytes().to_vec());
    }
    files.insert("vmlinuz", kernel());
    files
}

/// Starts the service on the controller's host.
fn start(lan: &Lan, policy: Arc<Same>) -> (netboot::Result<Service>, mpsc::Receiver<Finding>) {
    let (tell, findings) = mpsc::channel();
    let options = Options {
        interfaces: Vec::new(),
        http_port: 80,
        files: files(),
        policy,
        findings: Box::new(move |finding| drop(tell.send(finding.clone()))),
    };
    (lan.controller().inside(|| Service::start(options)).unwrap(), findings)
}

/// A client's socket on the machines' side, on which broadcasts are sent and heard.
fn socket(lan: &Lan, port: u16) -> UdpSocket {
    let socket = lan.machines().inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

fn request(mac: [u8; 6], class: &[u8], architecture: u16) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&mac[2..]);
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, 1, 60, u8::try_from(class.len()).unwrap()]);
    bytes.extend_from_slice(class);
    bytes.extend_from_slice(&[93, 2]);
    bytes.extend_from_slice(&architecture.to_be_bytes());
    bytes.push(255);
    bytes
}

const SERVER: SocketAddrV4 = SocketAddrV4::new(CONTROLLER, 67);
const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 255), 67);

/// Asks until the service answers, and returns the boot file that it names; `None` when it is silent.
fn ask(socket: &UdpSocket, mac: [u8; 6], class: &[u8], architecture: u16, patience: Duration) -> Option<String> {
    let start = Instant::now();
    let mut buffer = [0; 2048];
    while start.elapsed() < patience {
        socket.send_to(&request(mac, class, architecture), EVERYBODY).unwrap();
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = &buffer[..length];
            if from.ip() == CONTROLLER && answer[28..34] == mac {
                assert_eq!((answer[0], &answer[16..20]), (2, [0; 4].as_slice()), "no address is offered");
                let file = answer[108..236].split(|byte| *byte == 0).next().unwrap();
                return Some(String::from_utf8(file.to_vec()).unwrap());
            }
        }
    }
    None
}

/// Reads a file by TFTP as a client with `options`; an error's text where there is one.
fn tftp(lan: &Lan, name: &str, options: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let socket = socket(lan, 0);
    let mut read = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    for (option, value) in options {
        read.extend_from_slice(&[option.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    let asked =
        |option: &str| options.iter().find(|(name, _)| *name == option).map(|(_, value)| value.parse().unwrap());
    let (block_size, window): (usize, u64) =
        (asked("blksize").map_or(512, |size: u64| usize::try_from(size).unwrap()), asked("windowsize").unwrap_or(1));
    socket.send_to(&read, (CONTROLLER, 69)).unwrap();
    let (mut file, mut block) = (Vec::new(), 0_u64);
    let mut buffer = [0; 2048];
    loop {
        let (length, server) = socket.recv_from(&mut buffer).map_err(|e| format!("block {block}: {e}"))?;
        let acknowledge = |block: u64| {
            let [.., high, low] = block.to_be_bytes();
            socket.send_to(&[0, 4, high, low], server).unwrap();
        };
        match buffer[1] {
            6 => acknowledge(0),
            3 => {
                let [.., high, low] = (block + 1).to_be_bytes();
                if buffer[2..4] != [high, low] {
                    continue;
                }
                block += 1;
                file.extend_from_slice(&buffer[4..length]);
                let is_last = length - 4 < block_size;
                if is_last || block % window == 0 {
                    acknowledge(block);
                }
                if is_last {
                    return Ok(file);
                }
            }
            5 => return Err(String::from_utf8_lossy(&buffer[4..length - 1]).into_owned()),
            other => panic!("packet {other}"),
        }
    }
}

/// One HTTP request; status line with headers, and body.
fn http(lan: &Lan, request: &str) -> (String, Vec<u8>) {
    let answer = lan.machines().inside(|| {
        let mut stream = TcpStream::connect((CONTROLLER, 80)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request}Host: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    let answer = answer.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), answer[end + 4..].to_vec())
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

#[test]
fn boot_clients_get_their_file_beside_a_dhcp_server_and_nobody_else_does() {
    if !root() {
        return;
    }
    let lan = Lan::new().unwrap();
    let policy = same(Choice::Boot);
    let (service, findings) = start(&lan, Arc::clone(&policy));
    let service = service.unwrap();
    let client = socket(&lan, 68);
    let mac = [2, 0, 0, 0, 0, 1];
    let file = ask(&client, mac, b"PXEClient:Arch:00000:UNDI:002001", 0, PATIENCE).unwrap();
    assert_eq!(file, "m/020000000001/undionly.kpxe");
    let file = ask(&client, mac, b"HTTPClient:Arch:00016:UNDI:003001", 16, PATIENCE).unwrap();
    assert_eq!(file, "http://10.77.0.2/m/020000000001/vconverter.iso");
    assert_eq!(ask(&client, mac, b"MSFT 5.0", 0, Duration::from_secs(3)), None);

    // Every way through TFTP gives the same bytes.
    let name = "m/020000000001/vmlinuz";
    for options in [
        [].as_slice(),
        &[("blksize", "1408"), ("tsize", "0")],
        &[("blksize", "1468"), ("windowsize", "4")],
        &[("windowsize", "16"), ("timeout", "3")],
    ] {
        assert!(tftp(&lan, name, options).unwrap() == kernel(), "{options:?}");
    }
    assert_eq!(tftp(&lan, "../../etc/passwd", &[]).unwrap_err(), "no such file");
    assert!(policy.delivered.lock().unwrap().is_empty());
    assert_eq!(tftp(&lan, "m/020000000001/initramfs.img", &[]).unwrap(), b"initramfs.img");

    let (head, body) = http(&lan, "GET /m/020000000001/vmlinuz HTTP/1.1\r\n");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 300000") && body == kernel(), "{head}");
    let (head, body) = http(&lan, "HEAD /vmlinuz HTTP/1.1\r\n");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 300000") && body.is_empty(), "{head}");
    let (head, body) = http(&lan, "GET /vmlinuz HTTP/1.1\r\nRange: bytes=299996-\r\n");
    assert!(head.starts_with("http/1.1 206") && head.contains("bytes 299996-299999/300000"), "{head}");
    assert_eq!(body, kernel()[299_996..]);
    let (head, body) = http(&lan, "GET /m/020000000001/revocations_sku.efi HTTP/1.1\r\n");
    assert!(head.starts_with("http/1.1 404") && body == b"404 Not Found\n", "{head}");
    let (head, body) = http(&lan, "GET /m/020000000001//grubx64.efi HTTP/1.1\r\n");
    assert!(head.starts_with("http/1.1 200") && body == b"grubx64.efi", "{head}");
    let (head, body) = http(&lan, "GET /m/020000000001/vconverter.iso HTTP/1.1\r\n");
    assert!(head.contains("content-type: application/vnd.efi-iso") && body == b"vconverter.iso", "{head}");
    for (request, status) in [
        ("GET /../etc/passwd HTTP/1.1\r\n", "404"),
        ("GET /vmlinuz HTTP/1.1\r\nRange: bytes=300000-\r\n", "416"),
        ("POST /vmlinuz HTTP/1.1\r\nContent-Length: 0\r\n", "405"),
        ("GET nonsense\r\n", "400"),
    ] {
        let (head, _) = http(&lan, request);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{request}: {head}");
    }
    let start = Instant::now();
    while policy.delivered.lock().unwrap().is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(policy.delivered.lock().unwrap().contains(&MacAddress(mac)), "the initramfs or the ISO makes it whole");
    let findings: Vec<String> = findings.iter().map(|finding| finding.text).collect();
    assert!(findings.iter().any(|text| text == "eth0: DHCP server 10.77.0.1"), "{findings:?}");
    assert!(!findings.iter().any(|text| text.contains("filtered")), "{findings:?}");
    for record in service.log().records(0, 100) {
        println!("{} {}: {} ({})", record.mac.unwrap_or_default(), record.request, record.answer, record.why);
    }
    println!("{findings:#?}");
}

#[test]
fn what_keeps_it_from_working_is_said() {
    if !root() {
        return;
    }
    let mut lan = Lan::new().unwrap();
    lan.stop_dhcp();
    let (service, findings) = start(&lan, same(Choice::Ignore));
    let findings: Vec<String> = findings.iter().map(|finding| finding.text).collect();
    assert!(findings.iter().any(|text| text.contains("eth0: no DHCP server was heard")), "{findings:?}");
    let service = service.unwrap();
    let client = socket(&lan, 68);
    let silent = ask(&client, [2, 0, 0, 0, 0, 1], b"PXEClient", 0, Duration::from_secs(3));
    assert_eq!(silent, None, "an ignored machine");
    assert!(service.log().records(0, 9).iter().any(|record| record.answer == "nothing"));

    let (second, _) = start(&lan, same(Choice::Ignore));
    let error = second.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PortTaken);
    assert!(error.to_string().contains("UDP port 67 on eth0 is taken by "), "{error}");
    println!("{error}");
    drop(service);
    let (third, _) = start(&lan, same(Choice::Ignore));
    third.unwrap();
}

/// Resident memory of this process in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_storm_of_a_thousand_clients_neither_blocks_it_nor_fills_its_memory() {
    if !root() {
        return;
    }
    let lan = Lan::new().unwrap();
    let (service, _findings) = start(&lan, same(Choice::Boot));
    let service = service.unwrap();
    let client = socket(&lan, 68);
    assert!(ask(&client, [2, 0, 0, 0, 0, 1], b"PXEClient", 0, PATIENCE).is_some());
    let before = memory();
    let sockets: Vec<UdpSocket> = (0..200).map(|_| socket(&lan, 0)).collect();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let mac = [2, 1, 0, 0, high, low];
        client.send_to(&request(mac, b"PXEClient:Arch:00000", 0), SERVER).unwrap();
        // The same, broken somewhere.
        let mut broken = request(mac, b"PXEClient:Arch:00000", 0);
        for _ in 0..8 {
            let at = usize::try_from(random()).unwrap() % broken.len();
            broken[at] = random().to_le_bytes()[0];
        }
        client.send_to(&broken, SERVER).unwrap();
        client.send_to(&broken, (CONTROLLER, 4011)).unwrap();
        // A transfer that is begun and left alone, and one that is garbage.
        let socket = &sockets[usize::from(number) % sockets.len()];
        socket.send_to(b"\0\x01vmlinuz\0octet\0windowsize\x0032\0", (CONTROLLER, 69)).unwrap();
        let garbage: Vec<u8> = (0..64).map(|_| random().to_le_bytes()[0]).collect();
        socket.send_to(&garbage, (CONTROLLER, 69)).unwrap();
        if number % 250 == 0 {
            let (head, _) = http(&lan, "GET /undionly.kpxe HTTP/1.1\r\n");
            assert!(head.starts_with("http/1.1 200"), "{head}");
        }
    }
    let peak = memory();
    println!("memory before {before}, after the storm {peak}; {} records", service.log().records(0, 9999).len());
    assert!(peak.saturating_sub(before) < 64 << 20, "{before} → {peak}");
    let start = Instant::now();
    assert!(ask(&client, [2, 0, 0, 0, 0, 2], b"PXEClient", 0, PATIENCE).is_some());
    println!("answered {} ms after it", start.elapsed().as_millis());
    // One address may have eight transfers at a time; the service says so, and serves again when they have ended.
    let start = Instant::now();
    let is_whole = loop {
        match tftp(&lan, "vmlinuz", &[("blksize", "1408")]) {
            Ok(file) => break file == kernel(),
            Err(_) if start.elapsed() < Duration::from_secs(120) => std::thread::sleep(Duration::from_millis(500)),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(is_whole, "a whole file {} s later", start.elapsed().as_secs());
    println!("a transfer works {} s after the storm", start.elapsed().as_secs());
}

/// The program with nothing but what the systemd unit gives it: another user, two capabilities.
#[test]
fn the_service_alone_needs_two_capabilities_and_no_root() {
    if !root() {
        return;
    }
    let lan = Lan::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::create_dir_all(image.join("netboot")).unwrap();
    for name in ["undionly.kpxe", "vmlinuz", "initramfs.img"] {
        std::fs::write(image.join("netboot").join(name), name).unwrap();
    }
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("vconverter");
    // A copy where that user can read it.
    std::fs::copy(program, folder.path().join("vconverter")).unwrap();

    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/vconverter-pxe.service"));
    let unit = unit.unwrap();
    let given = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    let capabilities: Vec<String> =
        given.split(' ').map(|name| format!("+{}", name.trim_start_matches("CAP_").to_ascii_lowercase())).collect();
    let capabilities = capabilities.join(",");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups", "--no-new-privs"])
        .args(["--inh-caps", &format!("-all,{capabilities}"), "--ambient-caps", &format!("-all,{capabilities}")])
        .args(["--bounding-set", &format!("-all,{capabilities}")])
        .arg(folder.path().join("vconverter"))
        .args(["--data-dir", data.to_str().unwrap(), "pxe", "--boot-image", image.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut service = lan.controller().enter(&mut command).spawn().unwrap();
    let vconverter = |arguments: &[&str]| {
        let mut command = Command::new(folder.path().join("vconverter"));
        let output = command.args(["--json", "--data-dir", data.to_str().unwrap()]).args(arguments).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
    };
    let client = socket(&lan, 68);
    let mac = [2, 0, 0, 0, 0, 1];
    // Without a policy: a menu, which names no file.
    let menu = ask(&client, mac, b"PXEClient:Arch:00000", 0, PATIENCE);
    let set = vconverter(&["pxe", "policy", "02:00:00:00:00:01", "boot-once"]);
    let boot = ask(&client, mac, b"PXEClient:Arch:00000", 0, PATIENCE);
    let sent = tftp(&lan, "m/020000000001/initramfs.img", &[]);
    let (start, mut after) = (Instant::now(), vconverter(&["pxe", "policy"]));
    while after[0]["expires_at"].is_null() && start.elapsed() < PATIENCE {
        after = vconverter(&["pxe", "policy"]);
    }
    let log = vconverter(&["pxe", "log"]);
    service.kill().unwrap();
    let said = service.wait_with_output().unwrap();
    println!("{log:#}\n{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(menu.as_deref(), Some(""));
    assert_eq!(set[0]["policy"], "boot-once");
    assert_eq!((boot.as_deref(), sent.unwrap()), (Some("m/020000000001/undionly.kpxe"), b"initramfs.img".to_vec()));
    assert!(after[0]["expires_at"].is_string(), "boot once ends soon after the image was sent: {after}");
    let answers: Vec<&str> = log.as_array().unwrap().iter().map(|record| record["answer"].as_str().unwrap()).collect();
    assert!(
        answers[0].starts_with("menu") && answers.contains(&"boot file m/020000000001/undionly.kpxe"),
        "{answers:?}"
    );
}

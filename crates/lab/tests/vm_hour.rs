//! A copy whose link is cut for an hour. The clock is a VM's: with `-icount sleep=off` an idle processor's time jumps to its next
//! timer, so that an hour of waiting takes seconds, for the kernel's TCP and for our programs alike. Agent and controller are
//! the real ones, in two network namespaces of the VM with a cable between them.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bootimage::cpio::Archive;
use bootimage::{KernelChoice, Programs, load_kernel};

const MIB: usize = 1 << 20;
const DISK: usize = 8 * MIB;
const CUT_SECONDS: f64 = 3600.0;

/// The VM's init: everything is set up, cut, joined again and seen to its end; each line of interest begins with `VC`.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin VCONVERTER_DATA=/data HOME=/tmp
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs none /tmp
say() { echo "VC $(cut -d' ' -f1 /proc/uptime) $*"; }
end() { say "$@"; cat /tmp/*.log; poweroff -f; }
insmod /veth.ko && ip link set lo up && ip link add va type veth || end "failed: no cable"
unshare -n sleep 100000 & there=$!
inside() { nsenter -t $there -n "$@"; }
sleep 1
ip link set veth0 netns $there && ip addr add 10.0.0.1/24 dev va && ip link set va up || end "failed: this end"
inside ip link set lo up && inside ip addr add 10.0.0.2/24 dev veth0 && inside ip link set veth0 up || end "failed: that end"
RUST_LOG=info vconverter serve --no-console --listen 10.0.0.1:7770 >/tmp/serve.log 2>&1 &
tries=0
until vconverter status >/tmp/status.log 2>&1; do tries=$((tries+1)); [ $tries -lt 120 ] || end "failed: no controller"; sleep 1; done
authority=$(vconverter status --json | grep -o '[0-9a-f]\{64\}' | head -1)
inside vconverter-agent --controller 10.0.0.1:7770 --ca-fingerprint $authority --state-dir /tmp/agent --disk /disk.raw >/tmp/agent.log 2>&1 &
tries=0
until grep -q pairing_code /tmp/agent.log; do tries=$((tries+1)); [ $tries -lt 120 ] || end "failed: no agent"; sleep 1; done
code=$(grep -o 'pairing_code":"[^"]*' /tmp/agent.log | cut -d'"' -f3)
vconverter machines approve $code >/tmp/approve.log 2>&1 || end "failed: no approval"
sleep 2
machine=$(vconverter machines --json | grep -o 'm-[0-9a-f]\{8\}' | head -1)
task=$(vconverter convert $machine --name vm --output /vms --verify --no-prove-boot --bandwidth 100K --detach --json | grep -o 't-[0-9a-f]\{8\}' | head -1)
show() { vconverter tasks show $task --json | tr -d ' \n'; }
done_bytes() { show | grep -o '"done":[0-9]*' | head -1 | cut -d: -f2; }
state() { show | grep -o '"state":"[a-z]*"' | head -1 | cut -d'"' -f4; }
tries=0
until [ "$(done_bytes)" -ge 1000000 ]; do tries=$((tries+1)); [ $tries -lt 300 ] || end "failed: no copy"; sleep 1; done
say "cut $(state) $(done_bytes)"
ip link set va down
sleep 3600
say "joined $(state) $(done_bytes)"
ip link set va up
tries=0
while [ "$(state)" = running ]; do tries=$((tries+1)); [ $tries -lt 600 ] || end "failed: it does not go on"; sleep 1; done
say "ended $(state) $(show | grep -o '"sent":[0-9]*' | sed -n 's/"sent"://p' | sort -n | tail -1) $(show | grep -o '"verified":[a-z]*' | cut -d: -f2)"
end "over"
"#;

/// The driver of the cable, which is not in the kernel itself.
fn cable_driver(modules: &Path) -> Vec<u8> {
    let plain = modules.join("kernel/drivers/net/veth.ko");
    if plain.exists() {
        return fs::read(plain).unwrap();
    }
    let packed = modules.join("kernel/drivers/net/veth.ko.xz");
    let unpacked = Command::new("xz").arg("-dc").arg(&packed).output().unwrap();
    assert!(unpacked.status.success(), "{packed:?}");
    unpacked.stdout
}

fn make_initramfs(folder: &Path, modules: &Path) {
    let executable = std::env::current_exe().unwrap();
    let programs = executable.ancestors().nth(2).unwrap();
    let mut archive = Archive::new();
    for name in ["bin", "proc", "sys", "dev", "tmp", "data", "vms"] {
        archive.add_directory(name).unwrap();
    }
    archive.add_file("bin/busybox", 0o755, Path::new("/bin/busybox")).expect("the Debian package busybox-static");
    for program in ["vconverter", "vconverter-agent"] {
        archive.add_file(&format!("bin/{program}"), 0o755, &programs.join(program)).unwrap();
    }
    let mut noise = vec![0; DISK];
    File::open("/dev/urandom").unwrap().read_exact_at(&mut noise, 0).unwrap();
    archive.add_bytes("disk.raw", 0o600, noise).unwrap();
    archive.add_bytes("veth.ko", 0o600, cable_driver(modules)).unwrap();
    archive.add_bytes("init", 0o755, INIT.as_bytes()).unwrap();
    let mut file = File::create(folder.join("initramfs")).unwrap();
    archive.write_to(&mut file).unwrap();
}

#[test]
fn a_stream_survives_an_hours_cut() {
    let folder = tempfile::tempdir().unwrap();
    Programs::beside_executable().unwrap();
    let kernel = load_kernel(&KernelChoice::Cached, &mut |line| println!("{line}")).unwrap();
    make_initramfs(folder.path(), &kernel.modules);
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-icount", "shift=auto,sleep=off", "-m", "768"]);
    command.args(["-nographic", "-no-reboot", "-nic", "none", "-append", "console=ttyS0 quiet panic=-1", "-kernel"]);
    command.arg(&kernel.vmlinuz).arg("-initrd").arg(folder.path().join("initramfs")).stdin(Stdio::null());
    let began = std::time::Instant::now();
    let ran = qemu::die_with_us(&mut command).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let lines: Vec<Vec<&str>> = said
        .lines()
        .filter_map(|line| Some(line.split_once("VC ")?.1.split_whitespace().collect()))
        .inspect(|words: &Vec<&str>| println!("{}", words.join(" ")))
        .collect();
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    let find = |what: &str| lines.iter().find(|words| words.get(1) == Some(&what)).unwrap_or_else(|| panic!("{said}"));
    let (cut, joined, ended) = (find("cut"), find("joined"), find("ended"));
    let at = |words: &[&str]| words[0].parse::<f64>().unwrap();
    let bytes = |words: &[&str]| words[3].parse::<usize>().unwrap();
    assert!(at(joined) - at(cut) >= CUT_SECONDS, "{cut:?} {joined:?}");
    assert_eq!((cut[2], joined[2], &ended[2..3], ended[4]), ("running", "running", &["done"][..], "true"));
    assert!(bytes(cut) < DISK && bytes(joined) < DISK, "it was cut in the midst: {cut:?} {joined:?}");
    // What was on its way is sent again, and no more.
    assert!(bytes(ended) < DISK + 5 * MIB, "{} bytes were sent for {DISK}", bytes(ended));
    assert!(at(ended) - at(joined) < 600.0);
}

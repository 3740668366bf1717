//! A libvirt daemon of the test's own, in namespaces of its own: neither its sockets, nor its files, nor its domains are this
//! machine's, and all end with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `$1`: a folder for the socket. Its network `default` is a bridge that leads nowhere.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs tmpfs /run && mkdir -p /run/libvirt /run/lock
mkdir -p /var/lib/libvirt /var/log/libvirt /etc/libvirt /var/cache/libvirt
for folder in /var/lib/libvirt /var/log/libvirt /etc/libvirt /var/cache/libvirt; do mount -t tmpfs tmpfs "$folder"; done
# It wants the user that it was built for, whom another package makes, before it reads that it is to take root.
for file in passwd group; do
  cp "/etc/$file" "/run/$file"
  grep -q '^libvirt-qemu:' "/run/$file" || case $file in
    passwd) echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' ;;
    group) echo 'libvirt-qemu:x:64055:' ;;
  esac >>"/run/$file"
  mount --bind "/run/$file" "/etc/$file"
done
mkdir -p /etc/libvirt/qemu /var/lib/libvirt/qemu /var/log/libvirt/qemu
printf 'unix_sock_dir="%s"\nauth_unix_rw="none"\n' "$1" >/etc/libvirt/libvirtd.conf
printf 'user="root"\ngroup="root"\nsecurity_driver="none"\nstdio_handler="file"\nremember_owner=0\nnamespaces=[]\ncgroup_controllers=[]\n' >/etc/libvirt/qemu.conf
ip link add br0 type bridge
ip link set lo up
ip link set br0 up
# The shell stays, and buries what the daemon leaves behind.
libvirtd &
wait $!
"#;
const NETWORK: &str = "<network><name>default</name><forward mode='bridge'/><bridge name='br0'/></network>";
/// It asks QEMU what it can do first.
const START_MAX: Duration = Duration::from_secs(120);

pub(crate) struct Libvirtd {
    process: Child,
    folder: PathBuf,
    /// As libvirt names it.
    pub(crate) connection: String,
}

impl Libvirtd {
    /// None, and it says why, where there is none or the test may not have it.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || Command::new("libvirtd").arg("--version").output().is_err() {
            println!("skipped: it needs root and libvirtd");
            return None;
        }
        let folder = folder.join("libvirt");
        std::fs::create_dir(&folder).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            SCRIPT,
            "bash",
        ]);
        let process =
            unshare.arg(&folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let connection = format!("qemu+unix:///system?socket={}/libvirt-sock", folder.display());
        let started = Self { process, folder, connection };
        let deadline = Instant::now() + START_MAX;
        while started.virsh(&["list"]).is_none() {
            assert!(Instant::now() < deadline, "libvirtd does not answer: {}", started.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let network = started.folder.join("network.xml");
        std::fs::write(&network, NETWORK).unwrap();
        started.virsh(&["net-define", network.to_str().unwrap()]).unwrap();
        started.virsh(&["net-start", "default"]).unwrap();
        Some(started)
    }

    /// A definition for any machine: QEMU translates, since KVM may be absent, or there and not usable.
    pub(crate) fn without_kvm(definition: &str) -> String {
        let definition = definition.replace("type=\"kvm\"", "type=\"qemu\"");
        definition.replace("mode=\"host-passthrough\"", "mode=\"maximum\"")
    }

    /// Whether the first NIC of a domain is connected from its next start on: `up`, `down`.
    pub(crate) fn link_of(&self, name: &str) -> String {
        let definition = self.virsh(&["dumpxml", "--inactive", name]).unwrap();
        let link = definition.split("<link state='").nth(1).unwrap();
        link.split('\'').next().unwrap().to_owned()
    }

    /// A program on the network `default`, which is `br0` there.
    #[allow(dead_code)]
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.process.id())).arg(program);
        command
    }

    /// What it said.
    #[allow(dead_code)]
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn virsh(&self, words: &[&str]) -> Option<String> {
        let output =
            Command::new("virsh").args(["--quiet", "--connect", &self.connection]).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // The first process of its namespace: with it, all others end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

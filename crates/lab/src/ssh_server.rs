//! Servers that are reached over SSH, without a VM: the lab's Debian in namespaces of its own, with a real sshd, sudo and doas.
//!
//! All servers share one unpacked tree; what one of them writes is in memory and goes with it. There is no systemd in such a
//! tree, so services are those of SysV, or of OpenRC where [`SshServer::boot_openrc`] made it look so.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::base::{Base, tarball};
use crate::namespace::Daemon;
use crate::tool::Tool;
use crate::{Error, Lan, Result, cache};

/// Changes whenever the recipe of the tree does.
const RECIPE: u32 = 1;
/// What the lab's machines do not have.
const PACKAGES: [&str; 5] = ["sudo", "opendoas", "openrc", "libeinfo1", "librc1"];
/// Time for a server to come up.
const START: Duration = Duration::from_secs(60);

/// The users of every server, all with the password `secret`, and what they may do: by sudo with a password, by sudo without,
/// nothing, by sudo on a terminal only, by doas without a password, by doas with one.
pub const SSH_USERS: [&str; 6] = ["ada", "nopass", "bob", "teletype", "dora", "dave"];
/// Their password.
pub const SSH_PASSWORD: &str = "secret";

/// What it takes to make the server of a tree; `$R` is its root, `$U` where its changes go.
const START_SCRIPT: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$F"
mkdir "$U" "$F/work" "$R"
mount -t overlay -o "lowerdir=$T,upperdir=$U,workdir=$F/work" overlay "$R"
mount -t proc proc "$R/proc"
mount -t tmpfs -o mode=755 tmpfs "$R/dev"
mknod -m 666 "$R/dev/null" c 1 3; mknod -m 666 "$R/dev/zero" c 1 5; mknod -m 666 "$R/dev/tty" c 5 0
mknod -m 666 "$R/dev/random" c 1 8; mknod -m 666 "$R/dev/urandom" c 1 9
mkdir "$R/dev/shm" "$R/dev/pts"; mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$R/dev/pts"; ln -s pts/ptmx "$R/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$R/run"; mkdir "$R/run/sshd"
echo "127.0.0.1 localhost $(uname -n)" > "$R/etc/hosts"
for user in ada nopass bob teletype dora dave; do
  chroot "$R" /usr/sbin/useradd -m -s /bin/sh $user; echo $user:secret
done | chroot "$R" /usr/sbin/chpasswd
printf 'Defaults lecture=never\nDefaults:teletype requiretty\nada ALL=(ALL) ALL\nnopass,teletype ALL=(ALL) NOPASSWD: ALL\n' > "$R/etc/sudoers.d/lab"
chmod 440 "$R/etc/sudoers.d/lab"
printf 'permit nopass dora\npermit dave\n' > "$R/etc/doas.conf"
for home in root home/ada home/nopass; do
  mkdir -p "$R/$home/.ssh"; chmod 700 "$R/$home/.ssh"; cat "$KEY" > "$R/$home/.ssh/authorized_keys"
  chown --reference="$R/$home" -R "$R/$home/.ssh"
done
chroot "$R" ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
eval "$SETUP"
: > "$F/up"
# Whoever is cut off is noticed soon.
exec chroot "$R" /usr/sbin/sshd -D -E /var/log/sshd -o "ListenAddress=$LISTEN" -o HostKey=/etc/ssh/ssh_host_ed25519_key \
  -o PermitRootLogin=prohibit-password -o ClientAliveInterval=1 -o ClientAliveCountMax=3 -o PidFile=none -o MaxStartups=100
"#;

/// Everything that could have been changed: kinds, modes, owners, sizes, links; and the content of all that was ever written.
/// What a login itself writes is left out. What goes while it is looked at is told.
const CONTENT_SCRIPT: &str = r#"
cd "$R"
find . \( -path ./proc -o -path ./sys -o -path ./var/log -o -path ./run/sudo -o -path ./var/lib/sudo \) -prune -o \
  ! -path ./run/motd.dynamic ! -path './run/utmp' ! -path './dev/pts/*' ! -path './tmp/lab-*' \( -type d -printf '%p %y %m %u\n' -o -printf '%p %y %m %u %s %l\n' \) 2>&1 | sort
cd "$U"
find . \( -path ./var/log -o -path ./var/lib/sudo -o -path './tmp/lab-*' \) -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum 2>&1 || :
"#;

/// A running server. Dropping it ends it and all that ran in it.
#[derive(Debug)]
pub struct SshServer {
    daemon: Daemon,
    address: Ipv4Addr,
    port: u16,
    folder: TempDir,
}

impl SshServer {
    /// A server on the LAN's side of the machines. An address of a loopback is for jump hosts of the same LAN alone. Root,
    /// `ada` and `nopass` may log in with `key` (a public key's file); `setup` is a shell script with `$R` as the root.
    pub fn start(lan: &Lan, (address, port): (Ipv4Addr, u16), key: &Path, setup: &str) -> Result<Self> {
        if !address.is_loopback() {
            lan.machines().ip(&format!("address replace {address}/24 dev br0"))?;
        }
        let tree = tree()?;
        let folder = TempDir::new().map_err(|e| Error::io("making a temporary folder", e))?;
        let mut command = Command::new("unshare");
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START_SCRIPT]);
        command.envs(variables(folder.path())).env("T", tree).env("KEY", key).env("SETUP", setup);
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LISTEN", format!("{address}:{port}"));
        command.stdout(Stdio::null());
        lan.machines().enter(&mut command);
        let server = Self { daemon: Daemon::start(command)?, address, port, folder };
        server.wait_until_up(lan)?;
        Ok(server)
    }

    fn wait_until_up(&self, lan: &Lan) -> Result<()> {
        let start = Instant::now();
        loop {
            let connected =
                lan.machines().inside(|| std::net::TcpStream::connect((self.address, self.port)).is_ok())?;
            if connected {
                return Ok(());
            }
            // A script that failed has told why on standard error.
            let ended = start.elapsed() > Duration::from_secs(2) && self.inner_process().is_err();
            if ended || start.elapsed() > START {
                return Err(Error::new(format!("no SSH server came up at {}:{}", self.address, self.port)));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Fingerprint of its host key, as OpenSSH writes it.
    pub fn host_key(&self) -> Result<String> {
        let said = self.outside("ssh-keygen -lf \"$R/etc/ssh/ssh_host_ed25519_key.pub\"")?;
        let fingerprint = said.split_ascii_whitespace().nth(1).map(str::to_owned);
        fingerprint.ok_or_else(|| Error::new(format!("ssh-keygen -l: {said}")))
    }

    /// A line for a file of known hosts.
    pub fn known_host(&self) -> Result<String> {
        let key = self.outside("cut -d' ' -f1,2 \"$R/etc/ssh/ssh_host_ed25519_key.pub\"")?;
        let host = match self.port {
            22 => self.address.to_string(),
            port => format!("[{}]:{port}", self.address),
        };
        Ok(format!("{host} {key}"))
    }

    /// Runs a script as the server's root, in its tree.
    pub fn run(&self, script: &str) -> Result<String> {
        self.outside(&format!("exec chroot \"$R\" /bin/sh -c {}", quoted(script)))
    }

    /// Runs a script in the server's namespaces with this machine's programs; `$R` is its root.
    pub fn outside(&self, script: &str) -> Result<String> {
        let target = self.inner_process()?.to_string();
        let tool = Tool::new("nsenter", "util-linux");
        let tool = tool.args(["--target", &target, "--mount", "--pid", "--net", "sh", "-ec", script]);
        variables(self.folder.path()).into_iter().fold(tool, |tool, (name, value)| tool.env(name, value)).run()
    }

    /// All that is on it, as a text to compare.
    pub fn content(&self) -> Result<String> {
        self.outside(CONTENT_SCRIPT)
    }

    /// Command lines of its processes.
    pub fn processes(&self) -> Result<Vec<String>> {
        Ok(self.run("ps -e -o args=")?.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Has OpenRC take the system for started.
    pub fn boot_openrc(&self) -> Result<()> {
        self.run(
            "mkdir -p /etc/runlevels/default /run/openrc; cd /run/openrc; mkdir -p starting started stopping inactive wasinactive failed hotplugged daemons options exclusive scheduled init.d tmp; echo default > softlevel",
        )
        .map(drop)
    }

    /// The first process inside.
    fn inner_process(&self) -> Result<u32> {
        let outer = self.daemon.process();
        let path = format!("/proc/{outer}/task/{outer}/children");
        let children = fs::read_to_string(&path).map_err(|e| Error::file(Path::new(&path), e))?;
        let first = children.split_ascii_whitespace().next().and_then(|process| process.parse().ok());
        first.ok_or_else(|| Error::new("the SSH server ended"))
    }
}

fn variables(folder: &Path) -> [(&'static str, PathBuf); 3] {
    [("F", folder.to_path_buf()), ("U", folder.join("upper")), ("R", folder.join("root"))]
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Debian without kernel, with sudo, doas and OpenRC's programs; unpacked once.
fn tree() -> Result<PathBuf> {
    let base = tarball(Base::InitramfsTools)?;
    let inputs = format!("{RECIPE} {} {PACKAGES:?}", base.display());
    let folder = cache::entry("ssh-server", &inputs, |folder| {
        let tree = folder.join("tree");
        fs::create_dir(&tree).map_err(|e| Error::file(&tree, e))?;
        let excluded = ["./boot/*", "./usr/lib/modules", "./usr/share/doc", "./usr/share/zoneinfo"];
        let tar = Tool::new("tar", "tar").arg("-xf").arg(&base).arg("-C").arg(&tree);
        tar.args(excluded.map(|path| format!("--exclude={path}"))).run()?;
        Tool::new("apt-get", "apt").dir(folder).args(["download", "-qq"]).args(PACKAGES).run()?;
        // Debian's /lib is a link, which a package's folder must not replace.
        let unpack = "for package in *.deb; do dpkg-deb --fsys-tarfile \"$package\" | tar -x -C tree --keep-directory-symlink; done; rm *.deb";
        Tool::new("sh", "dash").dir(folder).args(["-ec", unpack]).run().map(drop)
    })?;
    Ok(folder.join("tree"))
}

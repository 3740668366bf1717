//! Rescue: an SSH server that accepts one key, and a shell on the screen's second console. Only where the builder was
//! given that key (`boot-image build --ssh-key`); else neither program is in the image.
//!
//! Whoever has the key, or stands at the machine, is root and can undo what protects the disks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::console::log;
use crate::{Error, Result, reaper};

const SERVER: &str = "/usr/sbin/dropbear";
const KEY_MAKER: &str = "/usr/bin/dropbearkey";
const BUSYBOX: &str = "/bin/busybox";
const HOST_KEY: &str = "/run/vconverter/rescue-host-key";
const HOME: &str = "/root";
/// A server that ends is started again after this.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether a shell is built in.
pub fn is_built_in() -> bool {
    Path::new(BUSYBOX).is_file()
}

/// Serves SSH for ever to who has `key`; for a thread of its own.
///
/// # Errors
/// It cannot be started at all.
pub fn serve(key: &str) -> Result<()> {
    prepare(key)?;
    loop {
        let mut command = Command::new(SERVER);
        // In the foreground, log on standard error; no passwords, no forwarding.
        command.args(["-F", "-E", "-s", "-j", "-k", "-r", HOST_KEY, "-p", "22"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = reaper::start(&mut command).map_err(|e| Error::path("start", Path::new(SERVER), e))?;
        if let Some(errors) = child.stderr.take() {
            for line in BufReader::new(errors).lines().map_while(std::result::Result::ok) {
                log(format!("rescue: {line}"));
            }
        }
        log(format!("rescue: the SSH server ended with {}", reaper::wait_for(&child)));
        std::thread::sleep(PAUSE);
    }
}

fn prepare(key: &str) -> Result<()> {
    let terminals = Path::new("/dev/pts");
    fs::create_dir_all(terminals).map_err(|e| Error::path("create", terminals, e))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    match mount("devpts", terminals, "devpts", flags, c"mode=0620,ptmxmode=0666") {
        Ok(()) | Err(Errno::BUSY) => {}
        Err(errno) => return Err(Error::path("mount devpts on", terminals, errno)),
    }
    authorize(Path::new(HOME), key)?;
    let folder = Path::new(HOST_KEY).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|e| Error::path("create", folder, e))?;
    let mut command = Command::new(KEY_MAKER);
    command.args(["-t", "ed25519", "-f", HOST_KEY]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = reaper::start(&mut command).map_err(|e| Error::path("start", Path::new(KEY_MAKER), e))?;
    if let Some(output) = child.stdout.take() {
        let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
        // By this the operator knows that no other machine answers.
        for line in lines.filter(|line| line.starts_with("Fingerprint:")) {
            log(format!("rescue: SSH as root, with the key of this image. {line}"));
        }
    }
    match reaper::wait_for(&child).as_str() {
        "exit code 0" => Ok(()),
        end => Err(Error::new(format!("rescue: no host key: {KEY_MAKER} ended with {end}"))),
    }
}

/// Puts the key where the server looks for it, for root alone.
fn authorize(home: &Path, key: &str) -> Result<()> {
    let folder = home.join(".ssh");
    fs::create_dir_all(&folder).map_err(|e| Error::path("create", &folder, e))?;
    let file = folder.join("authorized_keys");
    let only_root = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode));
    fs::write(&file, format!("{}\n", key.trim()))
        .and_then(|()| only_root(home, 0o700))
        .and_then(|()| only_root(&folder, 0o700))
        .and_then(|()| only_root(&file, 0o600))
        .map_err(|e| Error::path("write", &file, e))
}

/// Shows a shell on the screen's second console; when it ends, the first one is shown again.
///
/// # Errors
/// There is no screen, or it cannot be started.
pub fn open_shell() -> Result<()> {
    let screen = Path::new("/dev/tty2");
    fs::metadata(screen).map_err(|e| Error::path("open", screen, e))?;
    let mut command = Command::new(BUSYBOX);
    command.args(["openvt", "-c", "2", "-s", "-w", "--", BUSYBOX, "sh", "-l"]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", HOME).env("TERM", "linux");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let child = reaper::start(&mut command).map_err(|e| Error::path("start", Path::new(BUSYBOX), e))?;
    log("rescue: a shell is on the screen's second console (Alt+F2; Alt+F1 leads back)");
    std::thread::spawn(move || log(format!("rescue: the shell ended with {}", reaper::wait_for(&child))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("root");
        authorize(&home, "ssh-ed25519 AAAA admin\n").unwrap();
        let file = home.join(".ssh/authorized_keys");
        assert_eq!(fs::read_to_string(&file).unwrap(), "ssh-ed25519 AAAA admin\n");
        for (path, mode) in [(home.clone(), 0o700), (home.join(".ssh"), 0o700), (file, 0o600)] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }
}

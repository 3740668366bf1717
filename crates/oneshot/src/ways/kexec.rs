//! kexec: the running kernel loads ours and starts it in its place; nothing is written to a disk but the record.
//!
//! Only `kexec_file_load` is used (Linux 3.17): it checks signatures where it must, and loading is the proof that it is allowed.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, ErrorKind, Result};

use super::{ARCHIVES, Facts, KERNEL, Look, RECORD_ARCHIVE};

/// The first systemd that starts a loaded kernel without the program `kexec`.
const SYSTEMD_ALONE: u32 = 246;
const LOADED: &str = "/sys/kernel/kexec_loaded";
/// Memory that is to be left over while a boot image is loaded, in bytes.
const MEMORY_MARGIN: u64 = 256 << 20;
/// How often a boot image is in memory while it starts: loaded, copied, unpacked.
const MEMORY_FACTOR: u64 = 4;

pub(super) fn look(facts: &Facts<'_>) -> Look {
    let mut look = Look::default();
    let system = facts.system;
    match system.text(LOADED) {
        None => look.refused.push("the kernel has no kexec".to_owned()),
        Some(text) if text.trim() != "0" && system.load_record().ok().flatten().is_none() => {
            look.refused.push("somebody else loaded a kernel for kexec already".to_owned());
        }
        Some(_) => {}
    }
    let number = |path: &str| system.text(path).and_then(|text| text.trim().parse::<i64>().ok());
    if number("/proc/sys/kernel/kexec_load_disabled") == Some(1) {
        look.refused.push("kexec is switched off until the next restart (kernel.kexec_load_disabled)".to_owned());
    }
    if number("/proc/sys/kernel/kexec_load_limit_reboot") == Some(0) {
        look.refused.push("kexec is used up until the next restart (kernel.kexec_load_limit_reboot)".to_owned());
    }
    if system.is_running() && !has_file_load() {
        look.refused.push("the kernel has no kexec_file_load".to_owned());
    }
    if !system.path("/run/systemd/system").is_dir() {
        look.refused.push("systemd is not the init: nothing would end the system in order before kexec".to_owned());
    } else if !ends_in_kexec(facts) {
        look.refused.push(format!(
            "systemd is older than {SYSTEMD_ALONE}, and the program kexec is not there, which it would call"
        ));
    }
    let lockdown = system.text("/sys/kernel/security/lockdown").unwrap_or_default();
    if facts.is_secure_boot || ["[integrity]", "[confidentiality]"].iter().any(|mode| lockdown.contains(mode)) {
        look.notes.push(
            "the kernel is locked down: kexec works only if it trusts the signer of the boot image's kernel, which is tried before anything else".to_owned(),
        );
    }
    look.notes.push("once the boot image is loaded, the command `reboot` may start it before its time".to_owned());
    look.notes.push("most chipsets' watchdogs are stopped while the kernel hands over to the boot image's".to_owned());
    look
}

/// Whether `systemctl kexec` comes to the kernel's own kexec.
fn ends_in_kexec(facts: &Facts<'_>) -> bool {
    let has_program = ["/usr/sbin/kexec", "/sbin/kexec"].iter().any(|path| facts.system.path(path).exists());
    has_program || systemd_version(facts).is_some_and(|version| version >= SYSTEMD_ALONE)
}

fn systemd_version(facts: &Facts<'_>) -> Option<u32> {
    if !facts.system.is_running() {
        return None;
    }
    let output = Command::new("systemctl").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `systemd 252 (252.39-1~deb12u1)`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.strip_prefix("systemd ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the memory is enough for a boot image of this size.
pub(crate) fn memory_refusal(meminfo: &str, initramfs_bytes: u64) -> Option<String> {
    let number = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    // Before Linux 3.14 there is no estimate.
    let available = number("MemAvailable").or_else(|| number("MemFree")?.checked_add(number("Cached")?)).unwrap_or(0);
    let needed = initramfs_bytes.saturating_mul(MEMORY_FACTOR).saturating_add(MEMORY_MARGIN);
    let mib = |bytes: u64| bytes >> 20;
    (available < needed)
        .then(|| format!("{} MiB of memory are available, the boot image needs {} MiB", mib(available), mib(needed)))
}

/// Loads the boot image from the folder where it is staged.
pub(crate) fn load(staged: &Path, record_archive: &[u8], command_line: &str) -> Result<()> {
    let kernel_path = staged.join(KERNEL);
    let kernel = File::open(&kernel_path).map_err(|e| Error::path("open", &kernel_path, e))?;
    let archives = join_archives(staged, record_archive)?;
    let text = CString::new(command_line).map_err(|e| Error::new(ErrorKind::Refused, format!("command line: {e}")))?;
    let bytes = text.as_bytes_with_nul();
    // SAFETY: the descriptors are open, and the text has the length that is told, its end included.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            archives.as_raw_fd(),
            bytes.len(),
            bytes.as_ptr(),
            0_u64,
        )
    };
    check("load the boot image by kexec", result)
}

/// Whether a kernel is loaded.
pub(crate) fn is_loaded(facts: &Facts<'_>) -> bool {
    !facts.system.is_running() || facts.system.text(LOADED).is_some_and(|text| text.trim() != "0")
}

/// Throws away what was loaded; whether there was something.
pub(crate) fn unload(facts: &Facts<'_>) -> Result<bool> {
    const KEXEC_FILE_UNLOAD: u64 = 1;
    if !facts.system.is_running() || !is_loaded(facts) {
        return Ok(false);
    }
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag nothing else is looked at.
    let result = unsafe { libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0_usize, none, KEXEC_FILE_UNLOAD) };
    check("unload the boot image", result).map(|()| true)
}

fn has_file_load() -> bool {
    let none = std::ptr::null::<u8>();
    // SAFETY: descriptors that are none are refused before anything else is looked at.
    let result = unsafe { libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0_usize, none, 0_u64) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

fn check(what: &str, result: libc::c_long) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    Err(Error { kind: ErrorKind::Io, context: what.to_owned(), source: Some(io::Error::last_os_error()) })
}

/// All archives one after the other in memory, each from a multiple of four bytes on.
fn join_archives(staged: &Path, record_archive: &[u8]) -> Result<File> {
    use rustix::fs::MemfdFlags;
    let memory = rustix::fs::memfd_create("vconverter-initramfs", MemfdFlags::CLOEXEC);
    let error = |e: io::Error| Error {
        kind: ErrorKind::Io,
        context: "keep the boot image in memory".to_owned(),
        source: Some(e),
    };
    let mut memory = File::from(memory.map_err(|e| error(e.into()))?);
    for name in ARCHIVES {
        let path = staged.join(name);
        let mut archive: Box<dyn Read> = match name {
            RECORD_ARCHIVE => Box::new(record_archive),
            _ => Box::new(File::open(&path).map_err(|e| Error::path("open", &path, e))?),
        };
        let length = io::copy(&mut archive, &mut memory).map_err(error)?;
        let padding = usize::try_from(length.next_multiple_of(4) - length).unwrap_or(0);
        memory.write_all(&[0; 4][..padding]).map_err(error)?;
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    #[test]
    fn archives_begin_at_multiples_of_four() {
        let staged = tempfile::tempdir().unwrap();
        std::fs::write(staged.path().join("initramfs.img"), "abcde").unwrap();
        std::fs::write(staged.path().join("configuration.img"), "1234").unwrap();
        let mut joined = join_archives(staged.path(), b"r").unwrap();
        joined.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        joined.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abcde\0\0\x001234r\0\0\0");
    }

    #[test]
    fn memory_is_weighed() {
        let new = "MemTotal: 2048000 kB\nMemAvailable: 524288 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_refusal(new, 64 << 20), None);
        println!("{}", memory_refusal(new, 65 << 20).unwrap());
        let old = "MemFree: 262144 kB\nCached: 262144 kB\n";
        assert_eq!(memory_refusal(old, 64 << 20), None);
        assert!(memory_refusal("", 0).is_some());
    }

    #[test]
    fn versions_of_systemd_are_read() {
        assert_eq!(parse_version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(parse_version("systemd 208\n"), Some(208));
        assert_eq!(parse_version("systemd 257~rc1"), Some(257));
        assert_eq!(parse_version("sysvinit"), None);
    }
}

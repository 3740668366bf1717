//! What a rescue shell needs: an SSH server and a shell as programs of Debian's packages, with the libraries that they
//! name. In the image only where the operator gave a public key.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::{Error, ErrorKind, Result, debian_programs};

/// Where the SSH server lies in an image that has one.
pub(crate) const SERVER: &str = "usr/sbin/dropbear";
/// Programs: path here and in the image, package.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/sbin/dropbear", "dropbear-bin"),
    ("/usr/bin/dropbearkey", "dropbear-bin"),
    // The static one: it needs nothing else, and finds its applets in itself.
    ("/bin/busybox", "busybox-static"),
];
/// Kinds of keys that the server knows.
const KEY_KINDS: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Longest file of a key in bytes.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Reads the file of a public key: kind, key and comment on one line.
///
/// # Errors
/// [`ErrorKind::InvalidConfiguration`] for anything else: a private key, several, or one with options in front.
pub fn load_ssh_key(path: &Path) -> Result<String> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidConfiguration, format!("SSH key {}: {what}", path.display()));
    let unread = |e| Error { kind: ErrorKind::InvalidConfiguration, ..Error::path("read", path, e) };
    if fs::metadata(path).map_err(unread)?.len() > KEY_BYTES_MAX {
        return Err(wrong("too long for a public key"));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    if text.contains("PRIVATE KEY") {
        return Err(wrong(
            "this is a private key, which must not leave its place: expected the public one beside it (.pub)",
        ));
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(key), None) = (lines.next(), lines.next()) else { return Err(wrong("expected one public key")) };
    let mut words = key.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let is_key = words.next().is_some_and(|data| data.starts_with("AAAA") && data.chars().all(is_base64));
    if !KEY_KINDS.contains(&kind) || !is_key || key.chars().any(char::is_control) {
        return Err(wrong("expected a public key as `ssh-ed25519 AAAA… comment`, without options in front"));
    }
    Ok(key.to_owned())
}

/// The files of the rescue shell: path in the image → where it lies here.
pub(crate) fn find_programs(progress: &mut dyn FnMut(&str)) -> Result<BTreeMap<String, PathBuf>> {
    debian_programs::find(PROGRAMS, progress)
}

/// Puts the programs into an archive; root's shell is theirs then.
pub(crate) fn add_rescue(archive: &mut Archive, programs: &BTreeMap<String, PathBuf>) -> Result<()> {
    for (name, from) in programs {
        archive.add_file(name, 0o755, from)?;
    }
    archive.add_symlink("bin/sh", "busybox")?;
    archive.add_directory("root")?;
    archive.add_bytes("etc/shells", 0o644, *b"/bin/sh\n")?;
    archive.add_bytes("etc/passwd", 0o644, *b"root:x:0:0:root:/root:/bin/sh\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let file = folder.path().join("key.pub");
            fs::write(&file, text).unwrap();
            load_ssh_key(&file)
        };
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ admin@example.org";
        assert_eq!(load(&format!("# mine\n\n{key}\n")).unwrap(), key);
        for wrong in [
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "",
            "ssh-ed25519",
            "ssh-dss AAAAB3NzaC1kc3M admin",
            &format!("command=\"sh\" {key}"),
            &format!("{key}\n{key}\n"),
            "ssh-ed25519 AAAA\u{1b}[2J x",
        ] {
            assert_eq!(load(wrong).unwrap_err().kind, ErrorKind::InvalidConfiguration, "{wrong:?}");
        }
    }

    #[test]
    fn debians_programs_come_with_every_library_that_they_name() {
        let programs = find_programs(&mut |line| println!("{line}")).unwrap();
        for name in [SERVER, "usr/bin/dropbearkey", "bin/busybox", "lib64/ld-linux-x86-64.so.2"] {
            assert!(programs.contains_key(name), "{name}");
        }
        let size: u64 = programs.values().map(|file| fs::metadata(file).unwrap().len()).sum();
        println!("{} files, {} KiB: {:?}", programs.len(), size >> 10, programs.keys());
        assert!(size < 12 << 20);
        for file in programs.values() {
            for library in debian_programs::needed(file).unwrap() {
                assert!(programs.keys().any(|name| name.ends_with(&format!("/{library}"))), "{library}");
            }
        }
        let mut archive = Archive::new();
        add_rescue(&mut archive, &programs).unwrap();
    }
}
